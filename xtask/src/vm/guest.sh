#!/bin/sh
# PID 1 of the guest, in the host's root, which is read-only: runs the tests and powers off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
# Not over /tmp: the tests themselves may lie below it.
export TMPDIR=/run/tmp
mkdir -m 1777 "$TMPDIR"
# The kernel's modules stay where they were unpacked: programs and the kernel itself ask this modprobe.
mkdir /run/bin
printf '#!/bin/sh\nexec /usr/sbin/modprobe --dirname %s "$@"\n' "$modules" >/run/bin/modprobe
chmod +x /run/bin/modprobe
export PATH=/run/bin:$PATH
echo /run/bin/modprobe >/proc/sys/kernel/modprobe
# What no program asks the kernel for by itself.
modprobe -a br_netfilter veth bridge
# What comes only after tracer was started, tracer cannot listen to.
modprobe -a nf_reject_ipv4 nf_reject_ipv6
ip link set lo up
# Emulated, floods take minutes.
export TRACER_FLOODS=small
# Optimized, and what is installed on a node.
export TRACER_PROGRAM="$tracer"
status=0
for program in $(echo "$programs" | tr , " "); do
    "$program" --color=never --test-threads=1 $(echo "$tests" | tr , " ") || status=$?
done
echo "VM tests $status"
busybox poweroff -f
