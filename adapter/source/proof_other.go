//go:build !linux

package source

// proof is nothing here: a file is known by its size and times.
type proof struct{}

func (f *localFile) begin() (identity, error) { return identify(f) }

func identify(f *localFile) (identity, error) { return identifyHere(f) }

func (p *proof) exposed() bool { return false }

func (p *proof) harmless(identity) bool { return false }

func (p *proof) unseen() string { return "" }

func (p *proof) end() {}
