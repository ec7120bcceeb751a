package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestWatchedJSONIsALineEachSecond: programs read the output of status --watch --json by lines.
func TestWatchedJSONIsALineEachSecond(t *testing.T) {
	m := mountState{State: stateAlive}
	m.Mountpoint, m.Source, m.PID, m.Started = "/mnt/v3", "<a & b>", 7, time.Now()
	for _, all := range [][]mountState{nil, {m}, {m, m}} {
		var out bytes.Buffer
		if err := writeJSONLine(&out, statusFacts(all)); err != nil {
			t.Fatal(err)
		}
		var got statusJSON
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Mounts == nil {
			t.Errorf("%s: %v", &out, err)
		}
		lines := strings.Count(out.String(), "\n")
		if lines != 1 || len(got.Mounts) != len(all) || got.Version != jsonVersion {
			t.Errorf("%d mounts are printed as %q", len(all), &out)
		}
	}
}
