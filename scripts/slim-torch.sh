#!/bin/sh
# Removes from an installed torch what only a GPU can run: scripts/slim-torch.sh SITE_PACKAGES (needs binutils).
#
# torch's published Linux build links NVIDIA's libraries by name, so they can't just be deleted. Each of the large ones is
# replaced by a stub of the same name that exports the same symbols: linking succeeds, every function traps.
# Nothing calls them without a GPU: the CUDA runtime stays as it is and reports that there is no device.
set -eu
cd "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $(uname -m) in aarch64) trap_instruction="udf #0" ;; *) trap_instruction=ud2 ;; esac

make_stub() { # a library -> an empty one with its name, symbols and symbol versions; code traps, data is zero
    nm -D --defined-only --print-size "$1" | awk -v versions="$work/versions" -v stop="$trap_instruction" '
        { type = $(NF - 1); split($NF, name, /@+/); symbol = name[1]; version = name[2] }
        NF < 3 || type == "A" || symbol ~ /[^A-Za-z0-9_.$]/ || seen[symbol]++ { next }
        version { members[version] = members[version] symbol "; " }
        type ~ /[TWi]/ { print ".text\n.globl " symbol "\n.type " symbol ",@function\n" symbol ":\n" stop; next }
        { print ".data\n.balign 16\n.globl " symbol "\n.type " symbol ",@object\n.size " symbol ",0x" $2 "\n" symbol ":\n.zero 0x" $2 }
        END { for (version in members) print version " { global: " members[version] "};" >versions }
    ' >"$work/symbols.s"
    as -o "$work/symbols.o" "$work/symbols.s"
    [ ! -s "$work/versions" ] || set -- "$1" --version-script "$work/versions"
    library=$1 && shift
    ld -shared -z noexecstack -soname "$(basename "$library")" "$@" -o "$work/library.so" "$work/symbols.o"
    rm -f "$library" "$work/versions" && install -m 0644 "$work/library.so" "$library"
}

for name in cublas cublasLt cufft cusparse cusparseLt nccl nvrtc nvshmem_host; do
    library=$(find nvidia -name "lib$name.so.*")
    [ -n "$library" ] || { echo "torch no longer brings lib$name: revise $0" >&2; exit 1; }
    make_stub "$library"
done

# Loaded on demand by the above, by torch.compile or by tools: never on a CPU.
find nvidia -name 'libcusolver*' -delete
find nvidia \( -name 'libcudnn_*' -o -name 'libnvJitLink*' -o -name 'libnvrtc-builtins*' -o -name 'libnvperf*' -o -name 'libcheckpoint*' \) -delete
find nvidia \( -name '*.a' -o -name '*.bc' -o -name 'nvshmem_*' \) -delete
find nvidia \( -name include -o -name bin -o -name nvvm \) -prune -exec rm -rf {} +
rm -rf triton cuda torch/include torch/share
