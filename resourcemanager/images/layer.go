package images

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	// maxLayerName and maxElement are the longest path in a layer and the longest name in a path. The kernel accepts paths
	// of 4095 bytes, and /var/lib/docker/overlay2/ID/diff/ is 95 of them.
	maxLayerName = 4000
	maxElement   = 255
	// maxAccounts is the largest file of users or groups that is read.
	maxAccounts = 16 << 10
)

// layerFacts is what reading a layer has shown.
type layerFacts struct {
	// diffID is the digest of the layer's uncompressed tar.
	diffID digest.Digest
	// size is the unpacked size, entries the number of names, including folders that engines create for their content.
	size, entries int64
	// tree is what the layer unpacks to, nil if it was too large to keep.
	tree *tree
	// users and groups are its /etc/passwd and /etc/group.
	users, groups accounts
}

// matchLayers refuses an image whose manifest and config have different numbers of layers, or more than an engine accepts.
func (l Limits) matchLayers(m parsedManifest, config Config) error {
	got, want := len(m.Layers), len(config.diffIDs)
	if got != want {
		return invalid("the image's manifest has %d layers, its config %d", got, want)
	}
	return l.checkDepth(got)
}

// checkDepth refuses more layers than an engine accepts.
func (l Limits) checkDepth(layers int) error {
	if layers > l.Layers {
		return fmt.Errorf("the image has %d layers, and an engine accepts at most %d; build it with fewer steps: %w", layers, l.Layers, errdefs.ErrResourceExhausted)
	}
	return nil
}

// examination reads the layers of one image, lowest first, so that what an engine would refuse is refused here. Its limits
// apply to the whole image.
type examination struct {
	limits Limits
	// known are the facts of layers that were read before.
	known map[digest.Digest]layerFacts

	size, entries int64
	// steps is how many names were looked up in the layers.
	steps         int64
	root          rootfs
	users, groups accounts
}

func (l Limits) examine() *examination {
	return &examination{limits: l, known: map[digest.Digest]layerFacts{}}
}

// layer reads the next layer, unless its facts are known. DiffID is the digest of the layer's tar according to the image's
// config.
func (e *examination) layer(ctx context.Context, layer part, diffID digest.Digest) error {
	what := "layer " + layer.digest.String()
	facts, known := e.known[layer.digest]
	if known && e.size+facts.size > e.limits.ExpandedBytes {
		return tooLarge("the image", e.limits.ExpandedBytes)
	}
	if !known || facts.tree == nil {
		var err error
		if facts, err = e.read(ctx, what, layer); err != nil {
			return err
		}
		e.known[layer.digest] = facts
	}
	if facts.diffID != diffID {
		return invalid("%s has the content digest %s, not %s as in the image's config", what, facts.diffID, diffID)
	}
	e.size, e.entries, e.root = e.size+facts.size, e.entries+facts.entries, append(e.root, facts.tree)
	if e.entries > e.limits.LayerEntries {
		return e.tooMany()
	}
	e.users, e.groups = facts.users.overlay(e.users), facts.groups.overlay(e.groups)
	return nil
}

func (e *examination) tooMany() error {
	return fmt.Errorf("the image's layers have more than %d entries, which is the limit: %w", e.limits.LayerEntries, errdefs.ErrResourceExhausted)
}

// read reads a layer whose facts are not known.
func (e *examination) read(ctx context.Context, what string, layer part) (layerFacts, error) {
	facts, err := e.readFile(ctx, what, layer)
	if errors.Is(err, errExpands) {
		err = tooLarge("the image", e.limits.ExpandedBytes)
	}
	return facts, err
}

func (e *examination) readFile(ctx context.Context, what string, layer part) (layerFacts, error) {
	w := e.walk(what)
	w.facts.diffID = layer.digest
	err := w.readTar(ctx, layer, w.entries)
	if err == nil && w.replaced {
		err = w.readTar(ctx, layer, w.checkFolders)
	}
	e.steps += w.tree.steps
	return w.facts, err
}

// readTar reads a layer's tar from its beginning.
func (w *walk) readTar(ctx context.Context, layer part, through func(context.Context, *tar.Reader) error) error {
	file, err := os.Open(layer.path)
	if err != nil {
		return fmt.Errorf("read a layer: %w", err)
	}
	defer file.Close()
	limits := w.limits
	limits.ExpandedBytes -= w.size
	guarded, err := limits.expand(ctx, w.what, file)
	if errors.Is(err, io.EOF) {
		return nil // Some builders write an empty layer as an empty file, and engines accept it.
	}
	if err != nil {
		return err
	}
	if !guarded.compressed {
		// The tar's digest is known, so that files in it can be skipped on disk.
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read a layer: %w", err)
		}
		err := through(ctx, tar.NewReader(file))
		w.facts.size = max(w.facts.size, layer.size)
		return err
	}
	sum := sha256.New()
	teed := io.TeeReader(guarded, sum)
	if err := through(ctx, tar.NewReader(teed)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, teed); err != nil {
		return damaged(w.what, err)
	}
	w.facts.diffID, w.facts.size = digest.NewDigest(digest.SHA256, sum), max(w.facts.size, guarded.produced)
	return nil
}

// readAccounts reads the layer's files of users and groups.
func (w *walk) readAccounts(header *tar.Header, content io.Reader) error {
	name := path.Join("/", header.Name)
	file := &w.facts.users
	switch name {
	case "/etc/passwd", "/etc/.wh.passwd":
	case "/etc/group", "/etc/.wh.group":
		file = &w.facts.groups
	case "/etc", "/.wh.etc", "/etc/.wh..wh..opq": // A whiteout of the root has no effect.
		if header.Typeflag != tar.TypeDir {
			w.facts.users, w.facts.groups = w.facts.users.afterEntry(header), w.facts.groups.afterEntry(header)
		}
		return nil
	default:
		return nil
	}
	*file = file.afterEntry(header)
	if file.state != accountsKnown {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(content, maxAccounts))
	file.text = string(text)
	return err
}

// isGzip reports whether a file has a gzip header.
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
