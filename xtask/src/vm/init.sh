#!/bin/busybox sh
# PID 1 of the guest, from the initramfs: captures a real drop with the static tracer, then goes on as the
# guest's script in the host's root. The kernel hands `guest`, `modules`, `tracer`, `programs` and `tests` over
# from its command line.
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

# Where they are not built in.
for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci fuse virtiofs; do
    if [ -e /modules/$module.ko ]; then $b insmod /modules/$module.ko; fi
done
if $b mount -t virtiofs -o ro root /host; then
    # PID 1 itself, or the kernel would look for modprobe in the initramfs.
    exec $b switch_root /host "$guest"
fi
echo "VM tests no root: virtiofs cannot be mounted"
$b poweroff -f
