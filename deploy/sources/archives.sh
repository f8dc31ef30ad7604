#!/bin/sh
# The address and the suite of each archive that the host's apt is set up with; changes nothing.
set -eu
# shellcheck disable=SC2016  # apt's own variables
apt-get indextargets --no-release-info --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | sort -u
