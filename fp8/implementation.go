package fp8

// implementation is a set of kernels.
type implementation uint8

const (
	generic implementation = iota // portable Go
	avx2                          // AVX2 and F16C
	avx512                        // AVX-512 F, BW, DQ and VL, and BMI2
)

func (i implementation) String() string { return [...]string{"generic", "avx2", "avx512"}[i] }

// using is the set that runs. It is the best that the machine has, unless a test changes it.
var using = best()

// Implementation returns the kernels that run: "avx512", "avx2" or "generic". All give the same
// bits.
//
// With AVX-512, transposition uses the kernels of AVX2 if they are faster on this processor. Both
// are tried when they are first needed.
//
// Setting GODEBUG=cpu.avx512f=off or cpu.avx2=off in the environment disables the better kernels.
// The build tag purego leaves out all assembly.
func Implementation() string { return using.String() }
