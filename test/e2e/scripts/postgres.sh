# PostgreSQL on a volume behind the kernel's NBD client; see test/postgres.
modprobe nbd nbds_max=4
./postgres -binaries /host -frontend nbd -disks /dev/ubdb,/dev/ubdc,/dev/ubdd -scale 1 -clients 4 -volume 384 -lead 12s -every 12s && exit
status=$?
echo "what the daemons said last:"
tail -n 12 /var/tmp/holdfast-postgres-*-logs/*
exit "$status"
