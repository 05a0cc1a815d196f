# A mirrored volume whose client is where one of its replicas is: the disk of that
# replica hangs in the middle of a load, and the volume must go on with the others. The
# thread of that disk reads the sockets of client and replicas, so this is where one disk
# could hold up what it has nothing to do with.
set -euo pipefail
modprobe nbd nbds_max=4
modprobe dm-mod

say() { printf '== %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*"; tail -n 30 /tmp/n?.log; exit 1; }

sectors=$(blockdev --getsz /dev/ubdb)
echo "0 $sectors linear /dev/ubdb 0" | dmsetup create bad
dmsetup mknodes 2>/dev/null || true

mkdir -p /mnt/state
mount -t tmpfs state /mnt/state
daemons=()
for n in 1 2 3; do
	[ $n = 1 ] && how=--bootstrap || how=--join=127.0.0.1:7410
	mkdir -p "/tmp/run$n"
	/host/holdfastd $how --name "n$n" --data-dir "/mnt/state/n$n" --run-dir "/tmp/run$n" --control-socket "/tmp/run$n/control.sock" \
		--listen-control "127.0.0.1:74${n}0" --listen-data "127.0.0.1:74${n}1" --listen-raft "127.0.0.1:74${n}2" --listen-metrics "127.0.0.1:74${n}3" \
		>"/tmp/n$n.log" 2>&1 &
	daemons+=($!)
	end=$((SECONDS + 60))
	until HOLDFAST_SERVER=127.0.0.1:74${n}0 /host/holdfast disk list --timeout 5s >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || die "daemon $n does not answer"
		sleep 0.1
	done
done
HOLDFAST_SERVER=127.0.0.1:7410 /host/holdfast disk add /dev/mapper/bad
HOLDFAST_SERVER=127.0.0.1:7420 /host/holdfast disk add /dev/ubdc
HOLDFAST_SERVER=127.0.0.1:7430 /host/holdfast disk add /dev/ubdd
export HOLDFAST_SERVER=127.0.0.1:7410
/host/holdfast volume create data --size 512MiB --replicas 3
device=$(/host/holdfast volume attach data)

# The load writes and flushes pieces of 4 MiB, each to a place that has none yet, and then
# again, and notes them.
: >/tmp/pieces
load() {
	for i in $(seq 0 127); do
		[ ! -e /tmp/enough ] || return 0
		for _ in first again; do
			dd if=/tmp/random of="$device" bs=64k count=64 seek=$((i * 64)) oflag=direct conv=notrunc,fsync status=none ||
				{ echo failed >>/tmp/pieces; return; }
		done
		echo "$i" >>/tmp/pieces
	done
	echo "failed: the volume is full, make the load slower" >>/tmp/pieces
}
pieces() { wc -l </tmp/pieces; }
more() { # SECONDS WHAT: the load gets on
	local before end=$((SECONDS + $1))
	before=$(pieces)
	until [ "$(pieces)" -gt $((before + 2)) ]; do
		[ $SECONDS -lt $end ] || die "the load stands still: $2"
		sleep 0.1
	done
	! grep -q failed /tmp/pieces || die "a write failed: $2"
	say "$2: goes on after $((SECONDS + $1 - end)) s"
}
dd if=/dev/urandom of=/tmp/random bs=64k count=64 status=none
load &
writer=$!
more 30 "all disks work"

say "the disk under the client hangs"
dmsetup suspend --noflush --nolockfs bad
more 25 "the volume has lost a replica"
more 10 "the volume goes on without it"
/host/holdfast volume list || die "the node does not answer"

say "it answers again"
dmsetup resume bad
more 30 "the disk is back"
touch /tmp/enough
wait $writer
! grep -q failed /tmp/pieces || die "a write failed"
want=$(sha256sum </tmp/random)
while read -r i; do
	[ "$(dd if="$device" bs=64k count=64 skip=$((i * 64)) iflag=direct status=none | sha256sum)" = "$want" ] ||
		die "the volume has other bytes in piece $i"
done </tmp/pieces
say "$(pieces) pieces are as they were written"
timeout 60 /host/holdfast volume detach data || die "the volume is not detached"
kill "${daemons[@]}"
for daemon in "${daemons[@]}"; do
	wait "$daemon" || die "a daemon did not end in order"
done
