//go:build !linux

package main

func mountedSource(string) (string, error) { return "", nil }
