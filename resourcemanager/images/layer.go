package images

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// matchLayers refuses an image whose manifest and config do not speak of the same number of layers.
func matchLayers(m parsedManifest, config Config) error {
	if got, want := len(m.Layers), len(config.diffIDs); got != want {
		return invalid("the image's manifest names %d layers, its config %d", got, want)
	}
	return nil
}

// checkLayer reads a layer as a node will, so that what a node would choke on is refused here. DiffID is what the
// image's config gives as the digest of the layer's tar.
func (l Limits) checkLayer(layer part, diffID digest.Digest) error {
	what := "layer " + layer.digest.String()
	file, err := os.Open(layer.path)
	if err != nil {
		return fmt.Errorf("read a layer: %w", err)
	}
	defer file.Close()
	guarded, err := l.expand(what, file)
	if err != nil {
		return err
	}
	content := layer.digest
	if !guarded.compressed {
		// The tar's digest is known, and the files in it can be skipped on disk.
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read a layer: %w", err)
		}
		if err := l.checkEntries(what, tar.NewReader(file)); err != nil {
			return err
		}
	} else {
		sum := sha256.New()
		teed := io.TeeReader(guarded, sum)
		if err := l.checkEntries(what, tar.NewReader(teed)); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, teed); err != nil {
			return damaged(what, err)
		}
		content = digest.NewDigest(digest.SHA256, sum)
	}
	if content != diffID {
		return invalid("%s has the content digest %s, not %s as the image's config says", what, content, diffID)
	}
	return nil
}

// checkEntries walks through a layer. Names may be absolute there, and links may point anywhere: they are resolved
// within the container's root. Only what leads out of that root, and what would fill the node's disk, is refused.
func (l Limits) checkEntries(what string, reader *tar.Reader) error {
	var total int64
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged(what, err)
		}
		if leadsOut(header.Name) || header.Typeflag == tar.TypeLink && leadsOut(header.Linkname) {
			return invalid("%s holds the name %q, which leads out of the container", what, header.Name)
		}
		total += header.Size
		if header.Size < 0 || total < 0 || total > l.ExpandedBytes {
			return fmt.Errorf("%s expands to more than %d bytes, which is the limit: %w", what, l.ExpandedBytes, errdefs.ErrResourceExhausted)
		}
	}
}

func leadsOut(name string) bool {
	relative := path.Clean(strings.TrimLeft(name, "/"))
	return relative == ".." || strings.HasPrefix(relative, "../")
}

// isGzip reports whether a file begins as gzip does.
func isGzip(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("read a layer: %w", err)
	}
	defer file.Close()
	var start [2]byte
	_, err = io.ReadFull(file, start[:])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return false, nil
	}
	return start == [2]byte{0x1f, 0x8b}, err
}
