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

// checkLayer reads a layer as a node will, so that what a node would choke on is refused here. It tells the digest of
// the layer's tar.
func (l Limits) checkLayer(layer part) (diffID digest.Digest, err error) {
	file, err := os.Open(layer.path)
	if err != nil {
		return "", fmt.Errorf("read a layer: %w", err)
	}
	defer file.Close()
	what := "layer " + layer.digest.String()
	guarded, err := l.expand(what, file)
	if err != nil {
		return "", err
	}
	if !guarded.compressed {
		// The digest of the tar is known, and its content can be skipped on disk.
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return "", fmt.Errorf("read a layer: %w", err)
		}
		return layer.digest, l.checkEntries(layer, tar.NewReader(file))
	}
	sum := sha256.New()
	teed := io.TeeReader(guarded, sum)
	if err := l.checkEntries(layer, tar.NewReader(teed)); err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, teed); err != nil {
		return "", damaged(what, err)
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}

// checkEntries walks through a layer. Names may be absolute there, and links may point anywhere: they are resolved
// within the container's root. Only what leads out of that root, and what would fill the node's disk, is refused.
func (l Limits) checkEntries(layer part, reader *tar.Reader) error {
	var total int64
	for {
		header, err := reader.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return damaged("layer "+layer.digest.String(), err)
		}
		if leadsOut(header.Name) || header.Typeflag == tar.TypeLink && leadsOut(header.Linkname) {
			return invalid("layer %s holds the name %q, which leads out of the container", layer.digest, header.Name)
		}
		total += header.Size
		if header.Size < 0 || total < 0 || total > l.ExpandedBytes {
			return fmt.Errorf("layer %s expands to more than %d bytes, which is the limit: %w", layer.digest, l.ExpandedBytes, errdefs.ErrResourceExhausted)
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
