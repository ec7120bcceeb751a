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
