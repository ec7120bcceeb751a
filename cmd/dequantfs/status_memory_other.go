//go:build !linux

package main

import "context"

// memoryOf needs Linux.
func memoryOf(context.Context, string) *memoryState { return nil }
