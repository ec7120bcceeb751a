//go:build !linux

package main

func explainMount(err error, _, _ string) error { return err }
