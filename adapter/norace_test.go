//go:build !race

package adapter_test

const racing = false
