package units

import (
	"context"
	"testing"
	"time"
)

// TestStripsOfAStalledFileDoNotCount begins as many strips as allowed, from a file that does not
// answer.
func TestStripsOfAStalledFileDoNotCount(t *testing.T) {
	var all files
	s := strips{files: &all}
	s.setMost(2)
	stuck, other := &noFile{name: "stuck"}, &noFile{name: "other"}
	ctx, cancel := context.WithCancel(context.Background())
	for range 2 {
		if !s.begin(ctx, stuck) {
			t.Fatal("there is no room at first")
		}
	}
	if _, ok := s.try(other); ok {
		t.Fatal("there is room for more than is allowed")
	}
	all.of(stuck).begin()
	all.of(stuck).since.Store(time.Now().Add(-2 * stallAfter).UnixNano())
	for range 2 {
		if !s.begin(ctx, other) {
			t.Fatal("a stalled file keeps all the room")
		}
	}
	begun := make(chan bool)
	go func() { begun <- s.begin(ctx, other) }()
	s.end(other)
	if !<-begun {
		t.Error("what was given back is not used")
	}
	cancel()
	if s.begin(ctx, other) {
		t.Error("strips begin after the end")
	}
}
