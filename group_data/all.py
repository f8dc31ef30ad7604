"""Every knob, with its default: this file is the manual. All are flat, so that one line overrides one thing.

Where to set one, strongest first:  `--data KNOB=VALUE` on the command line  ·  the host in lab.yml
·  `defaults:` in lab.yml  ·  group_data/<group>.py  ·  here.
A wrong type or an unknown word is one line of error before any host is touched; data for deploy files of your own
begin with x_.
"""

from qwen_rig.ssh import connect_kwargs as _connect_kwargs

# -- What is wanted ----------------------------------------------------------------------------------
only_steps = None  # None: all steps · names with commas between (env,training): no other step is done (--only)
skip_steps = None  # None: no step is left out · names with commas between (driver,guard,reboot): these are (--skip).
#                    A host on which a step that is left out is not done yet, and that another step needs, is refused
model = None  # as Qwen/Qwen3.6-27B: settles stack, prefetch_model and the training settings; `rig fits --model` tells
#               what it takes. None: the guide's stack, and its settings by the card's memory
stack = "auto"  # auto: what `model` takes, else guide · a name in qwen_rig/data/stacks/ · the path of your own file
python = "auto"  # of the env; auto: the stack's own (guide: 3.10, qwen3.5: 3.12) · one that its lock holds for
env_name = "qwen-train"  # the conda env
conda_prefix = None  # None: adopt the first sound conda that is there, else ~/miniforge3
data_dir = None  # env, caches and HF_HOME go to its folder qwen-rig; None: below conda or home, and to the roomiest
#                  local disk that you may write to where there is too little room for the stack
installer = "auto"  # auto: uv, and pip where uv can't be fetched · uv · pip

# -- The machine -------------------------------------------------------------------------------------
nvidia_driver = "auto"  # auto: install or replace where the GPU or the stack needs it · never
nvidia_driver_branch = 580  # the branch installed when one is; a sound newer or older one is adopted
reboot = "auto"  # auto: only when the loaded driver is not the installed one · never
expect_gpus = None  # how many GPUs the host has: another number is refused; None: any
allow_busy_gpu = False  # True: go on (driver, reboot, deploy/certify.py) although processes use the GPU
compilers = "auto"  # auto: gcc and g++ from the distribution, which Triton and torch.compile call in training · never
cuda_toolkit = "auto"  # auto: where flash-attn may be built, or an nvcc is too old for the GPU · always · never

# -- Training ----------------------------------------------------------------------------------------
flash_attn = "auto"  # auto: a prebuilt wheel whose hash we hold, Hugging Face's kernel, a wheel that was built in this
#                      host's trust domain, one built here where an nvcc fits, else SDPA · wheel: prebuilt ones only,
#                      none that was built · build: no prebuilt one · fa4: flash-attn 4, then as auto · off: SDPA
flash_attn_jobs = None  # compilers at once; None: as cores and memory allow (qwen_rig/data/flash.yml)
flash_attn_git_head = False  # True: where the release can't be built, flash-attention's newest sources are (unpinned)
flash_attn_unverified = False  # True: wheels without a known checksum may be tried too, a third party's as well
flash_attn_leader_failed = "next"  # one host builds for others of its kind in its trust domain; where it fails: next:
#                                    another tries · sdpa: none does
prefetch_model = None  # as Qwen/Qwen2.5-0.5B: fetched into HF_HOME, from the endpoint that train_qwen.py uses; None:
#                        what `model` names · off: none
verification = "auto"  # auto: when what was verified has changed · always · never
verification_gpu = True  # False: don't fail where torch sees no GPU (the testbed's GPUs are emulated)

# -- One training over several hosts (deploy/launch.py) ------------------------------------------------
launch_address = None  # an address of the host's own by which the others reach it; None: the inventory's, else one in
#                        a network that all share
launch_port = 29500  # where they meet, at the first host; NCCL then takes more ports, as it likes

# -- Where things come from (None: the default of qwen_rig/data/sources.yml, or of the tool itself) ---------
source_pip_index = None  # PEP 503 index for torch and everything else
source_torch_index = None  # None: torch from source_pip_index too · pytorch: PyTorch's own index · the URL of one
accept_unlocked_torch = False  # True: take torch from there although no lock holds hashes for its bytes
source_conda_channel = None  # name or URL of a channel that has conda-forge's packages
conda_lock = None  # sha256 of Python, pip and what they need: None: qwen_rig/data/locks/conda.yml · a file like it
accept_unpinned_python = True  # False: where no lock holds their sha256, an env isn't built (`make pins` writes one)
source_miniforge = None  # folder URL that holds Miniforge3-<version>-Linux-x86_64.sh
source_miniforge_version = None  # of the installer in source_miniforge
source_miniforge_sha256 = None  # of that file
source_nvidia_apt = None  # base URL that holds debian12/x86_64/ and similar folders
source_nvidia_apt_key = None  # fingerprint of the key that signs it
source_apt = None  # archives that apt may fetch through a bundle, as its sources name them: URLs, blanks between
source_flash_attn = None  # folder URL that holds v<version>/<wheel>
source_huggingface = None  # HF_ENDPOINT of train_qwen.py
mirrors = "auto"  # auto: where a default is slow or out of reach from the host, the fastest of sources.yml's mirrors;
#                   off: never · {lan: {pip_index: https://…}} · the path of a file like sources.yml's `mirrors:`.
#                   A source_… knob stands above it
proxy = None  # http(s)_proxy for all that is fetched; None: as the host's own environment says
proxy_script = "auto"  # auto: /etc/network_turbo, where there is one, for GitHub alone · off · a script on the host
bundle = None  # a folder made by `qwen-rig bundle`: hosts fetch from it through their SSH connection, nothing else

# -- The hosts that a host trusts --------------------------------------------------------------------------------
trust_domain = None  # None: what a host makes (a flash-attn build) is used on that host alone · a name (lab): the hosts
#                      of that name share it, each one's root may run code on all of them. Give it to machines of your
#                      own, in lab.yml, cloud.yml or group_data/<group>.py; never to a group that holds a stranger's

# -- Patience, in seconds ------------------------------------------------------------------------------
timeout_probe = 60  # for the one command that reads a host
timeout_fetch = 60  # for one small file: a key, a page of an index
timeout_apt = 1800  # the driver and its kernel modules
timeout_apt_lock = 600  # for another process that holds apt's lock
timeout_env = 3600  # conda, the stack: gigabytes
timeout_flash_build = 10800  # flash-attn from source
timeout_verification = 900  # for the test of the env on the GPU
timeout_certify = 900  # deploy/certify.py: the measurements of all cards of a host
timeout_prefetch = 14400  # a model: tens of gigabytes
timeout_launch = 150  # for the all-reduce; no end after that is a finding
timeout_reboot = 600  # until a rebooted host answers again
timeout_reconnect = 600  # for a connection that broke under a long step; the step itself goes on

# -- The connection (see qwen_rig/ssh.py) --------------------------------------------------------------------
ssh_paramiko_connect_kwargs = _connect_kwargs()
