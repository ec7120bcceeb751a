package remote

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// mostNetrc is how many bytes of the file are read.
const mostNetrc = 1 << 20

// netrcFile names the file with users and passwords of hosts.
func netrcFile() string {
	if name := os.Getenv("NETRC"); name != "" {
		return name
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".netrc")
}

// netrc finds the user and the password for a host, as curl and requests do. ok is false if there
// are none. A file that is named by NETRC must be there.
func netrc(host string) (user, password string, ok bool, err error) {
	name := netrcFile()
	f, err := os.Open(name)
	switch {
	case err != nil && (os.Getenv("NETRC") == "" && errors.Is(err, fs.ErrNotExist) || name == ""):
		return "", "", false, nil
	case err != nil:
		return "", "", false, fmt.Errorf("users and passwords: %w", err)
	}
	defer f.Close() // it is only read
	user, password, ok, err = findMachine(io.LimitReader(f, mostNetrc), host)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return user, password, ok, err
}

// findMachine finds the entry of a host, or the default one. Its errors have no words of the file.
func findMachine(r io.Reader, host string) (user, password string, ok bool, err error) {
	words, err := netrcWords(r)
	if err != nil {
		return "", "", false, err
	}
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch {
		case word == "default" && !ok:
			ok = true
		case word == "default":
			return user, password, true, nil
		case len(words) == 0:
			return "", "", false, fmt.Errorf("the file ends after one of its keywords")
		case word == "machine":
			if ok {
				return user, password, true, nil
			}
			ok, words = strings.EqualFold(words[0], host), words[1:]
		case word == "login", word == "password", word == "account":
			switch {
			case ok && word == "login":
				user = words[0]
			case ok && word == "password":
				password = words[0]
			}
			words = words[1:]
		default:
			return "", "", false, errors.New("an unknown keyword")
		}
	}
	return user, password, ok, nil
}

// netrcWords reads the words of the file. A word in quotes may have blanks. Comments and macros are
// left out.
func netrcWords(r io.Reader) (words []string, err error) {
	macro := false
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, mostNetrc)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if macro {
			macro = line != "" // it ends with an empty line
			continue
		}
		for line != "" && (line[0] != '#' || expectsValue(words)) {
			var word string
			if word, line, err = netrcWord(line); err != nil {
				return nil, err
			}
			if word == "macdef" && !expectsValue(words) {
				macro = true
				break
			}
			words = append(words, word)
		}
	}
	return words, lines.Err()
}

// expectsValue reports whether the next word belongs to the last. A value may begin with a #.
func expectsValue(words []string) bool {
	if len(words) == 0 {
		return false
	}
	switch words[len(words)-1] {
	case "machine", "login", "password", "account":
		return len(words) < 2 || !expectsValue(words[:len(words)-1])
	}
	return false
}

// netrcWord takes the first word off a line.
func netrcWord(line string) (word, rest string, err error) {
	if line[0] != '"' {
		at := strings.IndexAny(line, " \t")
		if at < 0 {
			return line, "", nil
		}
		return line[:at], strings.TrimSpace(line[at:]), nil
	}
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case '"':
			return word, strings.TrimSpace(line[i+1:]), nil
		case '\\':
			if i++; i == len(line) {
				return "", "", fmt.Errorf("a quote is not closed")
			}
		}
		word += line[i : i+1]
	}
	return "", "", fmt.Errorf("a quote is not closed")
}
