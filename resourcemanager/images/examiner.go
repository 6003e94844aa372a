package images

import (
	"context"
	"maps"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/mammoth-os/mammoth/internal/peer"
)

const (
	// maxCachedLayers is how many layers' facts are cached.
	maxCachedLayers = 4096
	// maxCachedTree is the largest tree that is cached with a layer's facts, and maxCachedTrees the limit of all trees, in
	// names. Other layers are read again.
	maxCachedTree  = 1 << 18
	maxCachedTrees = 1 << 20
)

// examiner owns how many images are examined at the same time, and what is known of the layers that were.
type examiner struct {
	limits Limits
	blobs  *blobs
	slots  *limiter

	mu     sync.Mutex
	layers map[digest.Digest]layerFacts
}

func newExaminer(limits Limits, b *blobs) *examiner {
	return &examiner{limits: limits, blobs: b, slots: newLimiter(), layers: map[digest.Digest]layerFacts{}}
}

// begin waits until one more image of the user may be examined. The caller calls finish when it is done.
func (e *examiner) begin(ctx context.Context, who peer.User) (finish func(), err error) {
	return e.slots.acquire(ctx, who)
}

// examine checks an image in the store as an import does: its settings, and the layers that were not examined before.
func (e *examiner) examine(ctx context.Context, image *candidate) error {
	if err := e.limits.matchLayers(image.manifest, image.config); err != nil {
		return err
	}
	finish, err := e.begin(ctx, peer.From(ctx))
	if err != nil {
		return err
	}
	defer finish()
	examined := e.limits.examine()
	for i, layer := range image.manifest.Layers {
		if facts, ok := e.known(layer.Digest); ok {
			examined.known[layer.Digest] = facts
		}
		if err := examined.layer(ctx, part{digest: layer.Digest, size: layer.Size, path: e.blobs.path(layer.Digest)}, image.config.diffIDs[i]); err != nil {
			return err
		}
	}
	e.remember(examined.known)
	return image.config.checkSettings(examined)
}

// remember caches the facts of layers, so that they are not read again.
func (e *examiner) remember(facts map[digest.Digest]layerFacts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.layers)+len(facts) > maxCachedLayers {
		clear(e.layers)
	}
	maps.Copy(e.layers, facts)
	var total int64
	for sum, one := range e.layers {
		if one.tree == nil {
			continue
		}
		if weight := one.tree.cost(); weight > maxCachedTree || total+weight > maxCachedTrees {
			one.tree = nil
			e.layers[sum] = one
		} else {
			total += weight
		}
	}
}

// files returns an image's files, nil if a layer was not examined.
func (e *examiner) files(m parsedManifest) *imageFiles {
	var files imageFiles
	whole := true
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, layer := range m.Layers {
		facts, ok := e.layers[layer.Digest]
		if !ok {
			return nil
		}
		files.users, files.groups = facts.users.overlay(files.users), facts.groups.overlay(files.groups)
		files.root, whole = append(files.root, facts.tree), whole && facts.tree != nil
	}
	if !whole {
		files.root = nil
	}
	return &files
}

func (e *examiner) known(layer digest.Digest) (layerFacts, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	facts, ok := e.layers[layer]
	return facts, ok
}

// forgetOthers forgets the layers that are not in keep.
func (e *examiner) forgetOthers(keep map[digest.Digest]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.layers, func(sum digest.Digest, _ layerFacts) bool { return !keep[sum] })
}
