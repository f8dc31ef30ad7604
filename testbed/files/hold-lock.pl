# Holds dpkg's locks the way apt does (fcntl, F_SETLK) until stdin ends; prints its pid once it has them.
use Fcntl;
$0 = $ARGV[0];
for my $path ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock") {
    open(my $file, ">>", $path) or exit 1;
    my $lock = pack("s s x4 q q i x4", F_WRLCK, 0, 0, 0, 0);   # struct flock on 64-bit Linux
    fcntl($file, F_SETLK, $lock) or exit 1;
    push @held, $file;
}
open(my $comm, ">", "/proc/self/comm") or exit 1;
print $comm $ARGV[0];
close($comm);
$| = 1;
print "$$\n";
<STDIN>;
