# The node's half of a cluster, inside namespaces of its own for mounts and processes: what it mounts, writes
# below /run and /var, and starts is gone with this shell. Arguments: folder, containerd, ctr, kubelet, node
# name, node address, then the images to import.
set -eu
folder=$1 containerd=$2 ctr=$3 kubelet=$4 name=$5 address=$6
shift 6
mount --make-rprivate /
mount --make-rshared /
for volatile in /run /var/lib /var/log; do mount -t tmpfs tmpfs $volatile; done
# What is pinned goes too.
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/tracer /var/log/pods /var/log/containers
# The kubelet insists on these; it is shown them instead of changing the machine.
show() {
    echo "$2" >"$folder/sysctl-$(basename "$1")"
    mount --bind "$folder/sysctl-$(basename "$1")" "/proc/sys/$1"
}
show vm/overcommit_memory 1
show vm/panic_on_oom 0
show kernel/panic 10
show kernel/panic_on_oops 1
show kernel/keys/root_maxkeys 1000000
show kernel/keys/root_maxbytes 25000000
"$containerd" --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
socket=$folder/containerd.sock
until "$ctr" --address "$socket" version >"$folder/ctr.log" 2>&1; do
    kill -0 $! || { cat "$folder/containerd.log"; exit 1; }
    sleep 0.1
done
for image; do "$ctr" --address "$socket" --namespace k8s.io images import "$image"; done
exec "$kubelet" --config "$folder/kubelet.yaml" --kubeconfig "$folder/kubeconfig" \
    --hostname-override "$name" --node-ip "$address" --root-dir "$folder/kubelet" \
    --container-runtime remote --container-runtime-endpoint "unix://$socket" \
    --cert-dir "$folder/kubelet-certs" --volume-plugin-dir "$folder/plugins" \
    --pod-infra-container-image docker.io/library/pause:lab
