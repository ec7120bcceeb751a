package startup

import (
	"os"
	"syscall"
)

const (
	// leastFiles is how many descriptors it takes to start, and to start a mount.
	leastFiles = 18

	// leastSpace is how much address space has to be left when the runtime has started.
	leastSpace = 384 << 20
)

func init() {
	problem, hint := tooLow()
	if problem == "" {
		return
	}
	// If that fails too, the exit status is all that is left.
	_, _ = os.Stderr.WriteString("dequantfs: " + problem + "\ndequantfs: hint: " + hint + "\n")
	os.Exit(1)
}

// tooLow names a limit that is too low, and gives a fix.
func tooLow() (problem, hint string) {
	if n, limited := limit(syscall.RLIMIT_NOFILE); limited && n < leastFiles {
		return "the limit of open files is " + decimal(n) + ", but it takes " +
				decimal(leastFiles) + " to start, and more for each shard",
			"raise the limit of open files: ulimit -n 65536"
	}
	n, limited := limit(syscall.RLIMIT_AS)
	if !limited {
		return "", ""
	}
	if has := addressSpace(); n < has+leastSpace {
		return "the limit of address space is " + decimal(n>>20) + " MiB, but it takes " +
				decimal((has+leastSpace)>>20) + " MiB to start",
			"lift the limit of address space: ulimit -v unlimited; a cgroup limits memory better"
	}
	return "", ""
}

func limit(resource int) (n uint64, limited bool) {
	var l syscall.Rlimit
	err := syscall.Getrlimit(resource, &l)
	return l.Cur, err == nil && l.Cur < 1<<62
}

// addressSpace is the address space that the process has reserved, 0 if that is not known. It is
// the first number in statm.
func addressSpace() (n uint64) {
	data, _ := os.ReadFile("/proc/self/statm")
	for _, c := range data {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + uint64(c-'0')
	}
	return n * uint64(os.Getpagesize())
}

// decimal writes a number; strconv is not initialized yet.
func decimal(n uint64) string {
	var digits []byte
	for ; n > 9; n /= 10 {
		digits = append([]byte{byte('0' + n%10)}, digits...)
	}
	return string(append([]byte{byte('0' + n)}, digits...))
}
