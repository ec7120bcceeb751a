package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter/readback"
	"github.com/dequantfs/dequantfs/fs"
	"github.com/dequantfs/dequantfs/fs/export"
)

// A serve command has a record too, with its address in place of a mountpoint.
//
// The state of one user's mounts is in a directory that no other user can enter. A mount has up to
// three files in it, named after its mountpoint. The file .json describes the mount, the socket
// .sock returns its statistics, and .log is its log. The names of the first two also have the
// number of the process.

// record is the .json file of a mount.
type record struct {
	Mountpoint string              `json:"mountpoint"`
	Source     string              `json:"source"`           // as given, for messages
	Folder     string              `json:"folder,omitempty"` // or the file, that is mounted
	Views      []export.ViewRecord `json:"views" most:"65536"`
	PID        int                 `json:"pid"`
	Started    time.Time           `json:"started"`
	Log        string              `json:"log,omitempty"`
	Metrics    string              `json:"metrics,omitempty"`       // address
	Direct     bool                `json:"direct,omitempty"`        // reads go past the page cache
	Namespace  string              `json:"pid_namespace,omitempty"` // in which PID counts
}

// snapshot is the answer of the socket of a mount. All of it is from the same moment.
type snapshot struct {
	record
	Time  time.Time `json:"time"`
	Stats fs.Stats  `json:"stats"`
}

// stateName returns the beginning of the names of a mountpoint's files.
func stateName(mountpoint string) string {
	sum := sha256.Sum256([]byte(mountpoint))
	base := strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f && r != '/' {
			return r
		}
		return '_'
	}, filepath.Base(mountpoint))
	return base[:min(len(base), 24)] + "-" + hex.EncodeToString(sum[:4])
}

// name returns the name of the record's files without their endings. Each process has its own
// files. Otherwise a process that is still ending could remove the files of the next mount at the
// same mountpoint.
func (r *record) name() string {
	namespace := strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return c
		}
		return -1
	}, r.Namespace)
	return fmt.Sprintf("%s-%d-%s", stateName(r.Mountpoint), r.PID, namespace)
}

// mountState is a mount with its record, and with a snapshot if it answers.
type mountState struct {
	path  string
	State string `json:"state"` // "alive", "silent" (does not answer) or "dead"
	snapshot
	Memory *memoryState `json:"memory,omitempty"` // nil: not known
}

// The states of a mount.
const (
	stateAlive  = "alive"
	stateSilent = "silent"
	stateDead   = "dead"
)

// recordsOf finds the records of a mountpoint. It returns the paths of their files without the
// endings.
func recordsOf(dir, mountpoint string) map[string]record {
	found := map[string]record{}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		path, isRecord := strings.CutSuffix(filepath.Join(dir, f.Name()), ".json")
		if !isRecord || !strings.HasPrefix(f.Name(), stateName(mountpoint)+"-") {
			continue
		}
		if r, err := readRecord(path); err == nil && r.Mountpoint == mountpoint {
			found[path] = r
		}
	}
	return found
}

// Another version of dequantfs may have written a record or an answer, and mounts outlive upgrades.
var (
	recordLimits = readback.Limits{Bytes: 16 << 20, Loose: true}
	answerLimits = readback.Limits{Bytes: 16 << 20, Loose: true}
)

// readRecord reads the record of a mount.
func readRecord(path string) (r record, err error) {
	if err := readback.File(path+".json", &r, recordLimits); err != nil {
		return record{}, err
	}
	if err := r.check(); err != nil {
		return record{}, fmt.Errorf("%s.json: %w", path, err)
	}
	return r, nil
}

// served reports whether the record is of a serve command.
func (r *record) served() bool { return strings.HasPrefix(r.Mountpoint, "http://") }

// check refuses a record without a valid mountpoint, process and time.
func (r *record) check() error {
	switch {
	case !filepath.IsAbs(r.Mountpoint) && !r.served():
		return fmt.Errorf("%.200q is not a mountpoint", r.Mountpoint)
	case r.PID <= 0:
		return fmt.Errorf("%d is not the number of a process", r.PID)
	case r.Started.IsZero():
		return errors.New("it does not say when the mount began")
	}
	return nil
}

// readAnswer reads the answer of the socket of a mount.
func readAnswer(answer io.Reader) (s snapshot, err error) {
	if err := readback.Decode(answer, &s, answerLimits); err != nil {
		return snapshot{}, err
	}
	return s, s.check()
}
