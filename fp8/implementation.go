package fp8

// Implementation says which kernels run: "avx512", "avx2" or "generic".
func Implementation() string { return "generic" }
