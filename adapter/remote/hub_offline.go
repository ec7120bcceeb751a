package remote

import (
	"fmt"

	"github.com/dequantfs/dequantfs/adapter/source"
)

// openDownloaded opens a repository in the local cache of the Hub, because a variable forbids
// connections.
func openDownloaded(rest, variable string, o Options) (s source.Store, single string, err error) {
	if rest, single, err = splitSingle(rest); err != nil {
		return nil, "", err
	}
	at, err := parseRepository(rest)
	switch {
	case err != nil:
		return nil, "", err
	case at.folder != "":
		return nil, "", fmt.Errorf("%s is set, and folders of %s cannot be opened in the local "+
			"cache: unset it, or open the folder by its path", variable, at)
	}
	if s, err = source.OpenHub(at.id, at.revision, source.Options{}); err != nil {
		return nil, "", fmt.Errorf("%s is set, so only the local cache is read (unset it to read "+
			"from the Hub): %w", variable, err)
	}
	if o.Logger != nil {
		o.Logger.Warn(fmt.Sprintf("%s is set: %s is read from the local cache, %s", variable, at,
			s.Name()))
	}
	return s, single, nil
}
