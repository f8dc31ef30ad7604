# What an unprivileged user of a host can see, looked at again and again until the file named first is there: every
# process's command line and environment, every file that can be read below the folders named after it. Standard input:
# a secret a line, `name value`. Prints `name place` for each that was seen, and last how often it looked.
use strict;
use warnings;
my ($end, @folders) = @ARGV;
my %secret = map { chomp; split / /, $_, 2 } <STDIN>;
my (%seen, $looks);

sub contents {
  open my $file, '<', $_[0] or return '';
  read $file, my $text, 1 << 20;
  return defined $text ? $text : '';
}

sub look {
  my $text = contents($_[0]) or return;
  for my $name (keys %secret) {
    $seen{"$name $_[0] " . substr($text =~ tr/\0/ /r, 0, 60) =~ tr/\n/ /r} = 1 if index($text, $secret{$name}) >= 0;
  }
}

sub walk {
  my ($folder) = @_;
  opendir my $handle, $folder or return;
  for my $name (grep { !/^\.\.?$/ } readdir $handle) {
    my $path = "$folder/$name";
    next if -l $path;
    if (-d _) { walk($path) } elsif (-f _) { look($path) }
  }
}

until (-e $end) {
  opendir my $processes, '/proc' or die;
  for my $pid (grep { /^\d+$/ && $_ != $$ } readdir $processes) {
    look("/proc/$pid/cmdline");
    look("/proc/$pid/environ");
  }
  walk($_) for $looks++ % 40 ? () : @folders;
  select undef, undef, undef, 0.005;
}
print "$_\n" for sort keys %seen;
print "looked $looks\n";
