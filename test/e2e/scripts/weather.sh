# A round of test/robustness with bad weather. The disks of its nodes are images on
# the scratch disk.
set -euo pipefail
for module in loop bridge veth nf_tables sch_netem; do
	modprobe "$module"
done
mkfs.ext4 -q /dev/ubdb
mount /dev/ubdb /var/tmp
exec ./robustness.test -test.run '^TestWeather$' -test.v -robust.binaries /host -robust.evidence /host/out/evidence
