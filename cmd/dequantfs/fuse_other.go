//go:build !linux

package main

import "github.com/dequantfs/dequantfs/fs"

func checkFUSE(string, fs.MountOptions) error { return nil }

func explainHelper(err error) error { return err }
