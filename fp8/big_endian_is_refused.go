//go:build armbe || arm64be || m68k || mips || mips64 || mips64p32 || ppc || ppc64 || s390 || s390x || shbe || sparc || sparc64

package fp8

// Weights are little-endian in files and in memory. The package was never run on a big-endian
// machine. So the build fails there, because wrong bytes are worse than no program.
const _ = dequantfs_needs_a_little_endian_machine
