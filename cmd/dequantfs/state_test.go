package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorded reads a record of the first version.
func recorded(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../testdata/records", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// readState reads a record from a file with this text.
func readState(t testing.TB, text []byte) (record, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mnt-1")
	if err := os.WriteFile(path+".json", text, 0o600); err != nil {
		t.Fatal(err)
	}
	return readRecord(path)
}

func TestRecordsAndAnswersOfTheFirstVersionAreRead(t *testing.T) {
	r, err := readState(t, recorded(t, "state.json"))
	if err != nil || r.Mountpoint != "/mnt/v3" || r.PID != 4242 || len(r.Views) != 4 ||
		r.Views[1].Layout != "hf" || r.Started.Year() != 2026 {
		t.Errorf("%+v, %v", r, err)
	}
	s, err := readAnswer(bytes.NewReader(recorded(t, "answer.json")))
	if err != nil || !reflect.DeepEqual(s.record,
		r) || s.Stats.CacheBudget != 2527651430 || len(s.Stats.Latency["header"].Counts) != 20 {
		t.Errorf("%+v, %v", s, err)
	}
}

// A mount outlives an upgrade: fields that only one of the two versions knows must not hide it.
func TestRecordsOfOtherVersionsAreRead(t *testing.T) {
	const least = `"mountpoint":"/mnt/v3","pid":7,"started":"2026-01-02T03:04:05Z"`
	for _, text := range []string{
		`{` + least + `}`,
		`{` + least + `,"new":{"a":[1,{"b":null}]},"views":null}`,
		`{"version":2,` + least + `,"views":[{"layout":"hf","new":1}],"log":"/l"}`,
	} {
		r, err := readState(t, []byte(text))
		if err != nil || r.Mountpoint != "/mnt/v3" || r.PID != 7 {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
		const stats = `,"stats":{"bytes":5,"new":[],"reading":null}}` + "\n"
		s, err := readAnswer(strings.NewReader(text[:len(text)-1] + stats))
		if err != nil || s.PID != 7 || s.Stats.Bytes != 5 {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
}

func TestRecordsThatSayNothingAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		``:     "unexpected EOF",
		`{}`:   `"" is not a mountpoint`,
		`null`: "found null",
		`{"mountpoint":"mnt","pid":7,"started":"2026-01-02T03:04:05Z"}`:                  `"mnt" is not a mountpoint`,
		`{"mountpoint":"/m","pid":0,"started":"2026-01-02T03:04:05Z"}`:                   `0 is not the number of a process`,
		`{"mountpoint":"/m","pid":-1,"started":"2026-01-02T03:04:05Z"}`:                  `-1 is not the number of a process`,
		`{"mountpoint":"/m","pid":7}`:                                                    `when the mount began`,
		`{"mountpoint":"/m","pid":"7","started":"2026-01-02T03:04:05Z"}`:                 `a number`,
		`{"mountpoint":"/m","mountpoint":"/n","pid":7,"started":"2026-01-02T03:04:05Z"}`: `twice`,
		`{"mountpoint":"/m","pid":7,"started":"2026-01-02T03:04:05Z"}{}`:                 `follows`,
		`{"mountpoint":"/m","pid":7,"started":"2026-01-02T03:04:05Z","x":` + strings.Repeat("[",
			999): `nested deeper`,
	} {
		_, err := readState(t, []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(),
			"mnt-1.json") {
			t.Errorf("%.80s: error %v, want one with %q and the file", text, err, want)
		}
		_, err = readAnswer(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: error of an answer %v, want %q", text, err, want)
		}
	}
}

// FuzzReadState: what is read of a record is what encoding/json reads, and written again it is the
// same.
func FuzzReadState(f *testing.F) {
	f.Add(recorded(f, "state.json"))
	f.Add([]byte(`{"mountpoint":"/m","pid":7,"started":"2026-01-02T03:04:05Z","new":[{}]}`))
	path := filepath.Join(f.TempDir(), "mnt-1")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path+".json", data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := readRecord(path)
		if err != nil {
			return
		}
		if r.PID <= 0 || !filepath.IsAbs(r.Mountpoint) || r.Started.IsZero() {
			t.Errorf("%+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		same, err := readState(t, again)
		if d := cmp.Diff(r, same); err != nil || d != "" {
			t.Errorf("written and read again: %v %s", err, d)
		}
	})
}

// FuzzReadAnswer: likewise for the answer of a socket, which status prints.
func FuzzReadAnswer(f *testing.F) {
	f.Add(recorded(f, "answer.json"))
	f.Add([]byte(`{"mountpoint":"/m","pid":7,"started":"2026-01-02T03:04:05Z",` +
		`"stats":{"reading":["a"],"latency":{"x":{"sum":1e3}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := readAnswer(bytes.NewReader(data))
		if err != nil {
			return
		}
		if s.PID <= 0 || !filepath.IsAbs(s.Mountpoint) || s.Started.IsZero() {
			t.Errorf("%+v", s)
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		same, err := readAnswer(bytes.NewReader(again))
		if d := cmp.Diff(s, same, cmp.AllowUnexported(snapshot{})); err != nil || d != "" {
			t.Errorf("written and read again: %v %s", err, d)
		}
		var shown strings.Builder
		m := mountState{State: stateAlive, snapshot: s}
		if err := writeStatus(&shown, []mountState{m}, nil); err != nil {
			t.Error(err)
		}
		if lines := strings.Count(shown.String(), "\n"); lines > 10+len(s.Stats.Reading) {
			t.Errorf("%d lines", lines)
		}
	})
}

// endless gives a text, then another one over and over, and counts the bytes that are taken.
type endless struct {
	first, then string
	taken       int64
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		if at := int(e.taken); at < len(e.first) {
			p[i] = e.first[at]
		} else {
			p[i] = e.then[(at-len(e.first))%len(e.then)]
		}
		e.taken++
	}
	return len(p), nil
}

// TestAnAnswerIsReadWithinItsBounds has answers that never end, each of them well-formed so far.
func TestAnAnswerIsReadWithinItsBounds(t *testing.T) {
	for _, c := range []struct {
		first, then string
		most        int64
		want        string
	}{
		{`{"mountpoint":"`, "a", 64 << 10, "more than 65536 bytes"},
		{`{"new":[1`, `         ,1`, answerLimits.Bytes, "16777216 bytes"},
		{`{"x":`, `[1,`, 64 << 10, "nested deeper"},
		{`{"views":[{}`, `,{}`, answerLimits.Bytes, "more than 65536 elements"},
		{`{"stats":{"reading":["a"`, `,"a"`, answerLimits.Bytes, "more than 4096 elements"},
	} {
		answer := &endless{first: c.first, then: c.then}
		_, err := readAnswer(answer)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.first, err, c.want)
		}
		if slack := int64(1 << 20); answer.taken > c.most+slack {
			t.Errorf("%s: %d bytes were taken", c.first, answer.taken)
		}
	}
}
