package main

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestBytesWithoutARequestAreNotPrinted has a server send bytes that nobody asked for. The standard
// library would print them, with all that changes a terminal.
func TestBytesWithoutARequestAreNotPrinted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go answerTooMuch(conn)
		}
	}()
	s := newSession(t)
	c := s.command("ls", "http://"+l.Addr().String()+"/m/")
	out, err := c.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the server lists no files there") {
		t.Errorf("%v: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "dequantfs: ") {
			t.Errorf("a line is not ours: %s", line)
		}
	}
}

// answerTooMuch answers that there is no such file, and goes on.
func answerTooMuch(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		q, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_ = q.Body.Close()
		_, err = conn.Write([]byte("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\nHOSTILE"))
		if err != nil {
			return
		}
	}
}
