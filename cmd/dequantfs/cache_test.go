package main

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dequantfs/dequantfs/adapter/remote/diskcache"
)

// scriptCached fills a disk cache: cached DIR SOURCE OBJECTS. Each object has two blocks of 64 KiB,
// which take 72 KiB with their checksums.
func scriptCached(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: cached DIR SOURCE OBJECTS")
	}
	objects, err := strconv.Atoi(args[2])
	ts.Check(err)
	c, err := diskcache.Open(ts.MkAbs(args[0]), diskcache.Options{Free: 1})
	ts.Check(err)
	const n = 64 << 10
	for i := range objects {
		k := diskcache.Key{Origin: args[1], Object: fmt.Sprintf("object-%d", i), Version: "1"}
		for _, off := range []int64{0, n} {
			c.Write(k, off, make([]byte, n))
			if !c.Read(k, off, n, make([]byte, n), 0) {
				ts.Fatalf("%s: a block is not kept", args[0])
			}
		}
	}
	ts.Check(c.Close())
}

func TestAges(t *testing.T) {
	for text, want := range map[string]time.Duration{"30d": 30 * day, "1d": day,
		"12h": 12 * time.Hour,
		"90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "1s": time.Second,
		"106751d": 106751 * day,
		"":        0, "0": 0, "0d": 0, "-1h": 0, "-1d": 0, "1.5d": 0, "d": 0, "30": 0, "1w": 0,
		"106752d": 0, "+1d": 0} {
		var a age
		if err := a.Set(text); (err == nil) != (want > 0) || time.Duration(a) != want {
			t.Errorf("%q: %v, %v; want %v", text, time.Duration(a), err, want)
		}
		if want == 0 {
			continue
		}
		var again age
		if err := again.Set(a.String()); err != nil || again != a {
			t.Errorf("%q: its text %q is %v (%v)", text, a.String(), again, err)
		}
	}
}

func TestFormatAge(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Hour: "now", 59 * time.Second: "now",
		time.Minute:                     "1m ago",
		59*time.Minute + 59*time.Second: "59m ago", time.Hour: "1h ago", 47 * time.Hour: "47h ago",
		2 * day:   "2d ago",
		400 * day: "400d ago"} {
		if got := formatAge(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
