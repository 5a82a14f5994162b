#!/bin/busybox sh
# PID 1 of the guest: captures a real drop with tracer, says how it went on the console, and powers off.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs devtmpfs /dev
$b mount -t bpf bpf /sys/fs/bpf
$b ip link set lo up
echo "VM kernel $($b uname -r)"
/bin/tracer doctor
echo "VM doctor $?"
$b timeout 40 /bin/tracer watch --cluster none --reasons all --count 1 -o json --port 9999 >/tmp/drops 2>/tmp/said &
watch=$!
# Nobody listens there, so the kernel drops what comes. Again until it was seen or watch gave up.
while $b kill -0 $watch 2>/dev/null; do
    $b nc -w 1 127.0.0.1 9999 </dev/null 2>/dev/null
    $b sleep 0.2
done
wait $watch
echo "VM watch $?"
$b cat /tmp/said /tmp/drops
if $b grep -q '"port":9999' /tmp/drops; then echo "VM captured yes"; else echo "VM captured no"; fi
$b poweroff -f
