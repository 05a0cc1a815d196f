# Sourced by setup and run: where the guest lives.
#
# The folder's name carries a hash of the recipe, so that a changed recipe builds
# anew and an unchanged one is found again.

vm_source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
vm_cache=${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}
vm_key=$(cd "$vm_source" && cat setup packages guest-init | sha256sum | cut -c1-12)
vm_home=$vm_cache/vm-$vm_key

# die MESSAGE: the tool itself cannot go on. 125 is kept for that; everything
# below is the script's own exit code.
die() {
	echo "vm: $1" >&2
	exit 125
}
