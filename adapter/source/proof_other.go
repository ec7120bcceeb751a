//go:build !linux

package source

// proof is empty: a file is identified only by its size and times.
type proof struct{}

func (f *localFile) begin() (identity, error) { return identify(f) }

func identify(f *localFile) (identity, error) { return identifyHere(f) }

func (p *proof) exposed() bool { return false }

func (p *proof) harmless(identity) bool { return false }

func (p *proof) unseen() string { return "" }

func (p *proof) end() {}
