package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

const (
	logLines = 1000        // most lines that wait to be written
	logEnd   = time.Second // how long the end of a mount waits for them
)

// logQueue writes a log whose reader may be slow, such as a stopped terminal or a full pipe. Its
// callers do not wait. Lines without room are dropped, and the log later says how many.
type logQueue struct {
	lines   chan []byte
	dropped atomic.Int64
	stop    chan struct{} // closed: write the lines that are left, and end
	ended   chan struct{}
}

// unhurried returns a writer that never makes its callers wait, and a function to call after the
// last line. A regular file is used directly.
func unhurried(w io.Writer) (io.Writer, func()) {
	f, ok := w.(*os.File)
	if !ok {
		return w, func() {}
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return w, func() {}
	}
	q := &logQueue{lines: make(chan []byte, logLines), stop: make(chan struct{}),
		ended: make(chan struct{})}
	go q.write(w)
	return q, q.end
}

// Write takes one line.
func (q *logQueue) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *logQueue) write(w io.Writer) {
	defer close(q.ended)
	for {
		line, more := q.next()
		if n := q.dropped.Swap(0); n > 0 {
			fmt.Fprintf(w,
				"dequantfs: %d lines of the log were lost, because its reader was too slow\n", n)
		}
		if !more {
			return
		}
		_, _ = w.Write(line) // there is no other place for the error
	}
}

// next waits for a line, or for the end of them.
func (q *logQueue) next() (line []byte, more bool) {
	select {
	case line := <-q.lines:
		return line, true
	case <-q.stop:
	}
	select {
	case line := <-q.lines:
		return line, true
	default:
		return nil, false
	}
}

// end waits for queued lines, but at most for logEnd.
func (q *logQueue) end() {
	close(q.stop)
	select {
	case <-q.ended:
	case <-time.After(logEnd):
	}
}

// openLog opens a log to be appended to.
func openLog(name string) (*os.File, error) {
	if name == "" {
		name = os.DevNull
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND|nonblock, 0o600)
	if isWithoutReader(err) {
		return nil, withHint(fmt.Errorf("%s: this named pipe has no reader", name),
			"start its reader first, or give --log-file a regular file")
	}
	return f, err
}
