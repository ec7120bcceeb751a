package mutate

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
)

const childEnv = "DEQUANTFS_TEST_MUTATE"

// IsChild reports whether this process should call Serve, and then end.
func IsChild() bool { return os.Getenv(childEnv) != "" }

// command is one request to the child.
type command struct {
	Begin, Early string // take this file
	Op           *Op    // change it
	End          bool   // let go of it
}

// Serve answers requests until the pipe is closed.
func Serve() error {
	if os.Getenv(childEnv) == "relay" {
		return relay(os.Args[1], os.Args[2])
	}
	return change()
}

// change runs one request.
func change() error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var f *file
	for {
		var c command
		if err := in.Decode(&c); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		var err error
		switch {
		case c.Op != nil:
			err = Mutations[c.Op.Name].do(f, *c.Op)
		case c.End:
			err = f.end()
		default:
			f, err = newFile(c.Begin, c.Early)
		}
		if err := out.Encode(text(err)); err != nil {
			return err
		}
	}
}

// text is the message of an error, or nothing.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Child changes files.
type Child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

// Start starts a child.
func Start() (*Child, error) { return start("change") }

func start(how string, args ...string) (*Child, error) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &Child{cmd, in, json.NewEncoder(in), json.NewDecoder(out)}, cmd.Start()
}

func (c *Child) call(m command) error {
	if err := c.enc.Encode(m); err != nil {
		return err
	}
	return c.answer()
}

func (c *Child) answer() error {
	var said string
	if err := c.dec.Decode(&said); err != nil || said == "" {
		return err
	}
	return errors.New(said)
}

// Begin takes a file to change; early is one of Early.
func (c *Child) Begin(path, early string) error {
	return c.call(command{Begin: path, Early: early})
}

// Do changes it.
func (c *Child) Do(o Op) error { return c.call(command{Op: &o}) }

// End closes and unmaps the file.
func (c *Child) End() error { return c.call(command{End: true}) }

// Close ends the child.
func (c *Child) Close() error { return errors.Join(c.in.Close(), c.cmd.Wait()) }
