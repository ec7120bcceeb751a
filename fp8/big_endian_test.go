package fp8

import (
	"go/build"
	"testing"
)

// The file that does not compile must belong to the package on big-endian machines only.
func TestBigEndianMachinesAreRefused(t *testing.T) {
	for arch, refused := range map[string]bool{
		"mips": true, "mips64": true, "ppc64": true, "s390x": true,
		"386": false, "amd64": false, "arm": false, "arm64": false, "loong64": false, "mips64le": false, "mipsle": false,
		"ppc64le": false, "riscv64": false, "wasm": false,
	} {
		c := build.Default
		c.GOARCH = arch
		match, err := c.MatchFile(".", "big_endian_is_refused.go")
		if err != nil || match != refused {
			t.Errorf("%s: refused %v, %v", arch, match, err)
		}
	}
}
