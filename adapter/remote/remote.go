// Package remote reads checkpoints over a network: from the Hugging Face Hub, from object stores,
// and from web servers that answer range requests. It is the only package that opens network
// connections to a source, and it does so only for a name with a scheme.
//
// [Open] opens a source as a [source.Store]. All stores share one fetcher, so they differ only in
// how they list, sign and pin. A new kind of store is one file with a backend and one line in the
// table of schemes.
//
// # Versions
//
// A listing pins each object: its size, and its ETag, generation or commit. Every request carries
// that version, and every answer is compared with it before a byte is passed on. An object that has
// another version now is [source.ErrChanged]. So a reader never gets bytes of two versions.
//
// # Blocks
//
// A file is fetched in blocks of about 8 MiB that end where large tensors begin. A block is fetched
// once, however many readers wait for it. They get its first bytes before its last have arrived.
// Blocks depend on the file alone, so processes that share a disk cache have the same blocks.
// Memory for blocks is limited by [Options.Memory].
//
// # Errors
//
// A request is sent again if it was refused for a while, was cut short, or stalls. A read fails
// after [Options.Tries] requests in a row that brought nothing. Each may take [Options.Patience],
// and three times as much may pass before the next one if the store wants to be left alone. So a
// read ends within four minutes by default if the store sends nothing at all, even if it waits for
// its turn. Errors are not remembered: the next read asks again. Errors name the object, and never
// hold a token or a signed address.
package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// Options change how a remote source is read. The zero value suits most programs.
type Options struct {
	Logger *slog.Logger // receives warnings; nil discards them

	Memory   int64         // bytes of blocks in memory; 0: a tenth of the memory, at most 1 GiB
	AtOnce   int           // most requests at once; 0: 256
	Patience time.Duration // how long a request may bring no byte; 0: 10 s
	Tries    int           // how often bytes are asked for in vain before a read fails; 0: 6

	DiskCache     string // folder that keeps blocks; empty: none
	DiskCacheSize int64  // bytes in it; 0: as far as a tenth of the disk stays free

	// Transport sends requests. nil is right outside of tests.
	Transport http.RoundTripper
}

// schemes opens the stores, by the scheme of a name.
var schemes = map[string]func(ctx context.Context, a address, c *client) (backend, error){
	"https": openHTTPS,
	"http":  openHTTPS,
	"hf":    openHub,
	"s3":    openS3,
	"gs":    openGCS,
	"az":    openAzure,
}

// Is reports whether a name is that of a remote source: it begins with a scheme.
func Is(name string) bool { return strings.Contains(name, "://") }

// address is the name of a source, taken apart.
type address struct {
	scheme string
	rest   string // what follows "://", without the name of a single shard
	single string // that is asked for; empty: all
}

// Open opens a remote source by its name:
//
//	hf://org/name[@revision], or the address of the repository's page
//	https://host/folder/, http://host/folder/
//	s3://bucket/prefix, gs://bucket/prefix, az://account/container/prefix
//
// The name may end in a .safetensors file. Then single is the file's name in the store. Credentials
// are those that other programs for the store use, from the environment and from their files.
func Open(ctx context.Context, name string, o Options) (s source.Store, single string, err error) {
	if name, err = hubName(name); err != nil {
		return nil, "", err
	}
	scheme, rest, _ := strings.Cut(name, "://")
	if err := noCredential(scheme, rest); err != nil {
		return nil, "", err
	}
	if variable := hubOffline(); variable != "" && scheme == "hf" {
		return openDownloaded(rest, variable, o)
	}
	open := schemes[scheme]
	if open == nil {
		return nil, "", fmt.Errorf("%s:// is not a kind of source: %s", scheme, known())
	}
	if rest, single, err = splitSingle(rest); err != nil {
		return nil, "", err
	}
	c := newClient(o)
	b, err := open(ctx, address{scheme, rest, single}, c)
	if err != nil {
		c.close()
		return nil, "", clean(err)
	}
	d, err := openDisk(b, o)
	if err != nil {
		c.close()
		return nil, "", fmt.Errorf("disk cache: %w", err)
	}
	store := newStore(b, c, o)
	store.keep(d)
	return store, single, nil
}

// instead says where credentials are put that a name has, unless the name is one of the web, which
// has its own message.
var instead = map[string]string{
	"hf": "set HF_TOKEN",
	"s3": "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
	"gs": "set GOOGLE_APPLICATION_CREDENTIALS",
	"az": "set AZURE_STORAGE_SAS_TOKEN",
}

// noCredential refuses a name with a user or a query, which may be a password or a signature. Every
// user of this machine can see it in the list of processes.
func noCredential(scheme, rest string) error {
	host, _, folder := strings.Cut(rest, "/")
	const seen = "which every user of this machine would see: leave out the "
	switch way := instead[scheme]; {
	case way == "":
		return nil
	case strings.Contains(host, "@") && (folder || scheme != "hf"): // else a revision
		return errors.New("the name has a user, " + seen + "@ and what is before it; if that is a " +
			"credential, " + way)
	case strings.Contains(rest, "?"):
		return errors.New("the name has a query, " + seen + "? and what follows; if that is a " +
			"credential, " + way)
	}
	return nil
}

// known lists the schemes for messages.
func known() string {
	return "it is hf://, https://, s3://, gs:// or az://"
}

// splitSingle takes the name of a single shard off the end of a path.
func splitSingle(path string) (folder, single string, err error) {
	const shard = ".safetensors"
	at := strings.LastIndexByte(path, '/')
	if at < 0 || !strings.HasSuffix(path, shard) {
		return path, "", nil
	}
	return path[:at+1], path[at+1:], nil
}
