"""Travels with certify.py: does the card compute, how fast, and does its memory hold what is put in it? Needs torch.

Each check runs in a child that sees one card alone, as cuda:0. Nothing is judged here but right and wrong results.
"""

import statistics
import threading
import time

import certify_card
from processes import NotRun, one_line, result

SIZES = (1024, 2048, 4096, 8192, 16384)  # of square matrices
COPIES_MIB = (64, 256, 1024, 4096)
SPARE_MIB = 768  # left free by the pattern test, for the driver and the library's own needs
CHUNK_MIB = 512
PATTERN = 0x9E3779B97F4A7C15 - (1 << 64)  # 2⁶⁴ ÷ the golden ratio, odd: i × PATTERN is another word for every i


def gpu(expect):
    """torch, where it sees a GPU; else the check is not run."""
    import torch

    if not torch.cuda.is_available():
        raise NotRun("no GPU" if torch.version.cuda else "no GPU that this torch can use: it is a CPU build")
    return torch


def dtype(torch):
    """What training uses on this card: bf16 from compute capability 8.0 on, else fp16."""
    return torch.bfloat16 if torch.cuda.get_device_capability(0)[0] >= 8 else torch.float16


def name_of(kind):
    return {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32"}[str(kind)]


def timed(torch, work, seconds=1.0, least=7, most=200):
    """Seconds that one call takes, by CUDA events: warmed up, then the median of many; and the 10th and 90th of 100.

    Calls shorter than 5 ms are timed several at once, or the events themselves would count.
    """
    def measure(calls):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000 / calls

    work()
    warm = time.monotonic()
    while time.monotonic() - warm < 0.3:
        guess = measure(1)
    calls = max(1, int(0.005 / guess))
    repeats = min(max(least, int(seconds / (guess * calls))), most)
    times = sorted(measure(calls) for _ in range(repeats))
    low, high = times[len(times) // 10], times[-1 - len(times) // 10]
    return statistics.median(times), low, high


def build(expect):
    """The torch that is here: release, CUDA, the architectures it has code for, and what it sees."""
    import torch

    data = {"version": torch.__version__, "cuda": torch.version.cuda, "archs": [], "gpus": 0, "capability": None}
    if torch.cuda.is_available():
        seen = torch.cuda.get_device_properties(0)
        data.update(archs=torch.cuda.get_arch_list(), gpus=torch.cuda.device_count(),
                    capability=f"{seen.major}.{seen.minor}", name=seen.name, memory_mib=seen.total_memory >> 20,
                    processors=seen.multi_processor_count, uuid=str(getattr(seen, "uuid", "")),
                    cudnn=torch.backends.cudnn.version())
    return result("measured", data=data)


def kernel(expect):
    """The first kernel: the sum of the first n odd numbers is n²."""
    torch = gpu(expect)
    n = 1 << 20
    total = (torch.arange(n, device="cuda") * 2 + 1).sum().item()
    return result("measured", data={"sum": total, "right": total == n * n})


def precision(expect):
    """Errors of a 1024³ product against float64: fp32 as it is, fp32 with tf32 on, and the training dtype."""
    torch = gpu(expect)
    torch.manual_seed(0)
    a, b = (torch.randn(1024, 1024, device="cuda") for _ in range(2))
    exact = a.double() @ b.double()

    def error(product):
        return ((product.double() - exact).norm() / exact.norm()).item()

    torch.backends.cuda.matmul.allow_tf32 = False
    plain = error(a @ b)
    torch.backends.cuda.matmul.allow_tf32 = True
    tf32 = error(a @ b)
    torch.backends.cuda.matmul.allow_tf32 = False
    kind = dtype(torch)
    return result("measured", data={"fp32": plain, "tf32": tf32, "dtype": name_of(kind),
                                    "half": error(a.to(kind) @ b.to(kind))})


def matmul(expect):
    """TFLOP/s of square products of random numbers (zeros would draw less power and seem faster), by size."""
    torch = gpu(expect)
    kind, rows = dtype(torch), []
    for n in SIZES:
        if 3 * 2 * n * n > 0.8 * torch.cuda.mem_get_info()[0]:
            break
        a, b = (torch.randn(n, n, device="cuda", dtype=kind) for _ in range(2))
        out = torch.empty_like(a)
        median, low, high = timed(torch, lambda a=a, b=b, out=out: torch.matmul(a, b, out=out))
        rows.append({"size": n, "tflops": 2 * n**3 / median / 1e12, "low": 2 * n**3 / high / 1e12,
                     "high": 2 * n**3 / low / 1e12})
        del a, b, out
    return result("measured", data={"dtype": name_of(kind), "rows": rows})


def load(expect):
    """Some seconds of products without a pause, while nvidia-smi is asked: link, clocks, power, heat under load."""
    torch = gpu(expect)
    uuid, seconds, n, kind = expect.get("uuid"), expect["load_seconds"], 8192, dtype(torch)
    while 3 * 2 * n * n > 0.5 * torch.cuda.mem_get_info()[0]:
        n //= 2
    a, b = (torch.randn(n, n, device="cuda", dtype=kind) for _ in range(2))
    out, samples, problems, done = torch.empty_like(a), [], [], threading.Event()
    links = []

    def watch():
        done.wait(min(1.0, seconds / 3))  # clocks and link need a moment to rise
        while not done.is_set():
            try:
                row = certify_card.sample(uuid)
                link = certify_card.on_bus(expect["bus_id"]) if expect.get("bus_id") else None
                if row and not done.is_set():
                    samples.append(row)
                    links.append(link)
            except NotRun as why:
                problems.append(str(why))
            done.wait(0.3)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        for _ in range(10):
            torch.matmul(a, b, out=out)
        torch.cuda.synchronize()
        count += 10
    took = time.monotonic() - began
    done.set()
    watcher.join(35)
    return result("measured", data={"seconds": took, "size": n, "dtype": name_of(kind), "samples": samples,
                                    "tflops": 2 * n**3 * count / took / 1e12, "problems": problems[:3],
                                    "pci": links[-1] if links else None})


def bandwidth(expect):
    """GB/s of copies within the card's memory, bytes read and bytes written both counted, by size."""
    torch = gpu(expect)
    rows = []
    for mib in COPIES_MIB:
        if 2 * mib << 20 > 0.8 * torch.cuda.mem_get_info()[0]:
            break
        source = torch.randint(0, 255, (mib << 20,), dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        median, low, high = timed(torch, lambda s=source, t=target: t.copy_(s))
        moved = 2 * (mib << 20) / 1e9
        rows.append({"mib": mib, "gbs": moved / median, "low": moved / high, "high": moved / low})
        right = torch.equal(source, target)
        del source, target
        if not right:
            return result("fail", why=f"a copy of {mib} MiB differs from its source", data={"rows": rows})
    return result("measured", data={"rows": rows})


def transfer(expect):
    """GB/s between the host's pinned memory and the card, each way: what the PCIe link really carries."""
    torch = gpu(expect)
    try:
        host = torch.empty(256 << 20, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as error:
        raise NotRun(f"no pinned memory is available: {one_line(error, 120)}") from None
    card = torch.empty_like(host, device="cuda")
    down, _, _ = timed(torch, lambda: card.copy_(host, non_blocking=True), seconds=0.7)
    up, _, _ = timed(torch, lambda: host.copy_(card, non_blocking=True), seconds=0.7)
    return result("measured", data={"to_card_gbs": (256 << 20) / 1e9 / down, "to_host_gbs": (256 << 20) / 1e9 / up})


def memory(expect):
    """Every free word is written with a value made from its number, then all are read back; then the same inverted.

    All is written before anything is read, so that memory which isn't there (a card with a forged size) shows.
    """
    torch = gpu(expect)
    if expect.get("in_use") and not expect["allow_busy_gpu"]:
        raise NotRun("others use this GPU: filling its memory could end their work")
    free, total = torch.cuda.mem_get_info()
    words = CHUNK_MIB << 17  # of 8 bytes
    chunks, wrong, first = [], 0, None
    check = torch.empty(words, dtype=torch.int64, device="cuda")
    while torch.cuda.mem_get_info()[0] > (SPARE_MIB + CHUNK_MIB) << 20:
        try:
            chunks.append(torch.empty(words, dtype=torch.int64, device="cuda"))
        except torch.cuda.OutOfMemoryError:
            break
    for inverted in (False, True):
        def fill(chunk, number, inverted=inverted):
            torch.arange(number * words, (number + 1) * words, out=chunk)
            chunk.mul_(PATTERN)
            if inverted:
                chunk.bitwise_not_()

        for number, chunk in enumerate(chunks):
            fill(chunk, number)
        torch.cuda.synchronize()
        for number, chunk in enumerate(chunks):
            fill(check, number)
            if not torch.equal(chunk, check):
                bad = (chunk != check).nonzero()
                wrong += len(bad)
                first = first if first is not None else number * words * 8 + int(bad[0]) * 8
    tested = (len(chunks) + 1) * CHUNK_MIB
    return result("measured", data={"tested_mib": tested, "free_mib": free >> 20, "total_mib": total >> 20,
                                    "wrong_words": wrong, "first_wrong_byte": first})
