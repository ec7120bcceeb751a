package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheLatestMountAtAPlaceCounts(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	var all []mountState
	for i, s := range []struct {
		at    string
		state string
		age   time.Duration
	}{
		{"/b", stateDead, 3 * time.Second}, {"/a", stateSilent, time.Second}, {"/b", stateAlive,
			time.Second}, {"/b", stateDead, 2 * time.Second},
		{"/dev/fd/3", stateAlive, 0}, {"/dev/fd/3", stateAlive, 0},
	} {
		m := mountState{path: filepath.Join(dir, string(rune('a'+i))), State: s.state}
		m.Mountpoint, m.Started = s.at, now.Add(-s.age)
		data, err := json.Marshal(m.record)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.path+".json", data, 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	var got []string
	for _, m := range latest(all) {
		got = append(got, m.Mountpoint+" "+m.State)
	}
	if want := "/a silent, /b alive, /dev/fd/3 alive, /dev/fd/3 alive"; strings.Join(got,
		", ") != want {
		t.Errorf("%v, want %s", got, want)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(left) != 4 {
		t.Errorf("records left: %v, %v", left, err)
	}
}

// A mount that was detached with --lazy is served until its last reader is done. The next one at
// its mountpoint is not waited for that long.
func TestTheNewestMountOfAMountpointIsWaitedFor(t *testing.T) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	records := map[string]record{
		"a": {PID: 1, Started: began.Add(time.Second)},
		"b": {PID: 2, Started: began.Add(2 * time.Second)},
		"c": {PID: 3, Started: began},
	}
	if path, r := newest(records); path != "b" || r.PID != 2 {
		t.Errorf("%s, process %d", path, r.PID)
	}
	if path, _ := newest(nil); path != "" {
		t.Errorf("without records: %s", path)
	}
}
