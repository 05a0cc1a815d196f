# Disks that fail, under one daemon with two of them: the bad one errs, then hangs,
# and the good one must not notice.
set -euo pipefail
modprobe nbd nbds_max=4
modprobe dm-mod

export HOLDFAST_SERVER=127.0.0.1:7420
say() { printf '== %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*"; tail -n 40 /tmp/log; exit 1; }

sectors=$(blockdev --getsz /dev/ubdb)
table() { # how ubdb is reached: linear, or error
	case $1 in
	linear) echo "0 $sectors linear /dev/ubdb 0" ;;
	error) echo "0 $sectors error" ;;
	esac
}
load() { # replaces the table, without a flush of what runs
	dmsetup suspend --noflush --nolockfs bad
	table "$1" | dmsetup load bad
	dmsetup resume bad
}
table linear | dmsetup create bad
dmsetup mknodes 2>/dev/null || true

mkdir -p /tmp/run /mnt/state
mount -t tmpfs state /mnt/state
start() {
	/host/holdfastd --data-dir /mnt/state/data --run-dir /tmp/run --name n1 "$@" >>/tmp/log 2>&1 &
	daemon=$!
	local end=$((SECONDS + 60))
	until /host/holdfast disk list --timeout 5s >/dev/null 2>&1; do
		kill -0 $daemon && [ $SECONDS -lt $end ] || die "the daemon does not answer"
		sleep 0.1
	done
}
disk() { # what the list says in the column STATE of a device
	/host/holdfast disk list | grep -E "/dev/$1 " || true
}
await() { # SECONDS DEVICE PATTERN, patterns of grep -E
	local end=$((SECONDS + $1))
	until disk "$2" | grep -qE "$3"; do
		[ $SECONDS -lt $end ] || die "disk $2 is not $3 after $1 s: $(disk "$2")"
		kill -0 $daemon || die "the daemon ended"
		sleep 0.2
	done
	say "after $((SECONDS + $1 - end)) s: $(disk "$2")"
}
good() { # the volume on the good disk takes a flushed write, soon
	timeout 5 dd if=/dev/urandom of="$good" bs=64k count=16 seek=$((RANDOM % 100)) oflag=direct conv=fsync status=none ||
		die "the good disk does not work: $1"
}

say "a device with data is refused"
start --bootstrap
mkfs.ext4 -q /dev/ubdd
if /host/holdfast disk add /dev/ubdd; then die "a device with ext4 was taken"; fi
mount /dev/ubdd /mnt
if /host/holdfast disk add /dev/ubdd --force; then die "a mounted device was taken"; fi
umount /mnt
if /host/holdfast disk add /dev/ubdb --force; then die "a device under another one was taken"; fi

say "two disks"
/host/holdfast disk add /dev/mapper/bad --class ssd
/host/holdfast disk add /dev/ubdc --class hdd
/host/holdfast disk list -o wide
grep holdfast/ /proc/mounts || grep xfs /proc/mounts
/host/holdfast volume create bad --size 64MiB --replicas 1 --disk-class ssd
/host/holdfast volume create good --size 64MiB --replicas 1 --disk-class hdd
bad=$(/host/holdfast volume attach bad)
good=$(/host/holdfast volume attach good)
dd if=/dev/urandom of="$bad" bs=64k count=256 oflag=direct conv=fsync status=none
good "before any failure"

works_again() {
	/host/holdfast disk add /dev/mapper/bad --timeout 60s || die "the disk is not taken back"
	await 10 '(mapper/bad|dm-0)' ' works '
	# The disk may have forgotten what was not flushed, so that the attachment of a
	# volume that lay on nothing else is over.
	wait $writer || true
	/host/holdfast volume detach bad
	bad=$(/host/holdfast volume attach bad)
	timeout 60 dd if="$bad" of=/dev/null bs=64k count=256 iflag=direct status=none || die "the volume is not read"
	timeout 60 dd if=/dev/urandom of="$bad" bs=64k count=64 oflag=direct conv=fsync status=none || die "the volume is not written"
	good "after the other one is back"
}

say "the disk errs"
load error
dd if=/dev/zero of="$bad" bs=64k count=64 oflag=direct conv=fsync status=none &
writer=$!
await 30 '(mapper/bad|dm-0)' 'failed: '
good "while the other one errs"
say "it works again, and is taken back"
load linear
works_again

say "the disk hangs"
dmsetup suspend --noflush --nolockfs bad
dd if=/dev/zero of="$bad" bs=64k count=64 oflag=direct conv=fsync status=none &
writer=$!
await 10 '(mapper/bad|dm-0)' 'slow: an operation has taken'
good "while the other one is slow"
await 30 '(mapper/bad|dm-0)' 'failed: .*does not return'
good "while the other one hangs"
/host/holdfast node list | grep alive || die "the node does not report any more"
/host/holdfast volume create more --size 64MiB --replicas 1 || die "no volume on the good disk"
say "it answers again, and is taken back"
dmsetup resume bad
works_again

say "the machine boots, and devices have other names"
/host/holdfast volume detach bad
/host/holdfast volume detach good
kill $daemon
wait $daemon || die "the daemon did not end in order"
umount /mnt/state/data/disks/*
dmsetup remove bad
table linear | dmsetup create renamed
start
await 20 '(mapper/renamed|dm-0)' ' works '
bad=$(/host/holdfast volume attach bad)
timeout 60 dd if="$bad" of=/dev/null bs=64k count=256 iflag=direct status=none || die "the volume is not read"
/host/holdfast volume detach bad

say "a disk is cordoned and removed"
/host/holdfast volume delete good
/host/holdfast volume delete more
/host/holdfast disk cordon /dev/ubdc
end=$((SECONDS + 20))
until /host/holdfast disk remove /dev/ubdc; do
	[ $SECONDS -lt $end ] || die "the disk is not removed"
	sleep 0.5
done
until ! grep ubdc /proc/mounts; do
	[ $SECONDS -lt $end ] || die "the device is not unmounted"
	sleep 0.2
done
kill $daemon
wait $daemon || die "the daemon did not end in order"
say "all is well"
