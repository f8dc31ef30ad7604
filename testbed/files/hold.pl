# hold.pl lock|gpu NAME: holds dpkg's locks the way apt does (fcntl, F_SETLK), or the EMULATED GPU's device, under a
# process name of choice until stdin ends; prints its pid once it has them.
use Fcntl;
my ($what, $name) = @ARGV;
$0 = $name;
my @paths = $what eq "lock" ? ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock") : ("/dev/nvidia0");
for my $path (@paths) {
    open(my $file, "+>>", $path) or die "$path: $!\n";
    if ($what eq "lock") {
        my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);   # struct flock on 64-bit Linux
        fcntl($file, F_SETLK, $lock) or die "$path: $!\n";
    }
    push @held, $file;
}
open(my $comm, ">", "/proc/self/comm") or exit 1;
print $comm $name;
close($comm);
$| = 1;
print "$$\n";
<STDIN>;
