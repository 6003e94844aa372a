package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/image"

	"github.com/mammoth-os/mammoth/internal/resource"
	"github.com/mammoth-os/mammoth/nodemanager/disk"
	"github.com/mammoth-os/mammoth/nodemanager/runtime"
)

// localPrefix is the prefix of the names that complete images have in the engine.
const localPrefix = "mammoth.local/"

// images owns what is known of the zone's images in the engine, and the pulls that bring them there.
type images struct {
	engine *engine
	zone   string
	// registry is the host:port to pull from; empty is none.
	registry string
	pulls    pulls
}

func newImages(e *engine, zone, registry string) *images {
	return &images{engine: e, zone: zone, registry: registry, pulls: pulls{running: make(map[string]*pull), present: make(map[string]bool)}}
}

// localName is mammoth.local/ZONE/NAME:<32 digits of the manifest's digest>. It does not contain the registry, whose port
// changes; it contains the zone, so that a zone removes its own images only.
func (i *images) localName(ref string) string {
	name, digest, ok := strings.Cut(ref, "@sha256:")
	if !ok {
		return ref
	}
	return i.localNames() + name + ":" + digest[:min(32, len(digest))]
}

// localNames is the prefix of the names of this zone's images.
func (i *images) localNames() string { return localPrefix + i.zone + "/" }

// remove removes the images that the zone has brought to the engine, and returns how many. An image that a container needs stays.
func (i *images) remove(ctx context.Context) (int, error) {
	images, err := i.engine.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return 0, i.engine.failure(ctx, err)
	}
	removed := 0
	for _, one := range images {
		for _, tag := range one.RepoTags {
			if !strings.HasPrefix(tag, i.localNames()) {
				continue
			}
			_, err := i.engine.ImageRemove(ctx, tag, image.RemoveOptions{PruneChildren: true})
			switch {
			case err == nil:
				removed++
			case !errdefs.IsNotFound(err) && !errdefs.IsConflict(err):
				return removed, i.engine.failure(ctx, err)
			}
		}
	}
	return removed, nil
}

// prepare makes an image NAME@sha256:… ready to be started.
func (i *images) prepare(ctx context.Context, ref string, progress func(runtime.Progress)) error {
	name, digest, ok := strings.Cut(ref, "@sha256:")
	if !ok || name == "" || len(digest) != 64 {
		return fmt.Errorf("%q is not an image of the form NAME@sha256:…: %w", ref, errdefs.ErrInvalidArgument)
	}
	if i.pulls.isPresent(ref) {
		return nil
	}
	_, err := i.engine.ImageInspect(ctx, i.localName(ref))
	switch {
	case err == nil:
		i.pulls.setPresent(ref)
		return nil
	case !errdefs.IsNotFound(err):
		return i.engine.failure(ctx, err)
	case i.registry == "":
		return fmt.Errorf("image %q is not on this node, which has no registry to pull from: %w", ref, errdefs.ErrNotFound)
	}
	return i.pulls.join(ctx, ref, progress, func(ctx context.Context, progress func(runtime.Progress)) error {
		return i.pull(ctx, ref, progress)
	})
}

// forget reports whether an image was known to be on the host. The engine is asked the next time.
func (i *images) forget(ref string) bool { return i.pulls.forget(ref) }

// close ends all pulls and waits for them.
func (i *images) close() { i.pulls.close() }

// pull pulls an image through the node's registry and gives it its local name.
func (i *images) pull(ctx context.Context, ref string, progress func(runtime.Progress)) error {
	remote := i.registry + "/" + ref
	stream, err := i.engine.ImagePull(ctx, remote, image.PullOptions{})
	if err != nil {
		return i.pullFailure(ctx, ref, err)
	}
	defer stream.Close()
	moved := map[string]int64{}
	err = readProgress(stream, func(phase string, bytes int64) {
		moved[phase] += bytes
		progress(runtime.Progress{Phase: phase, Bytes: moved[phase]})
	})
	if err != nil {
		return i.pullFailure(ctx, ref, err)
	}
	if err := i.engine.ImageTag(ctx, remote, i.localName(ref)); err != nil {
		return i.engine.failure(ctx, err)
	}
	// Only the name is removed; another client of the engine may have been faster.
	_, err = i.engine.ImageRemove(ctx, remote, image.RemoveOptions{})
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
		return i.engine.failure(ctx, err)
	}
	return nil
}

// readProgress reads an engine's stream of JSON messages; an error message is an error. moved is called with the bytes that
// arrived since the last call, for "download" and "load".
func readProgress(stream io.Reader, moved func(phase string, bytes int64)) error {
	type layer struct{ id, phase string }
	seen := make(map[layer]int64)
	decoder := json.NewDecoder(stream)
	for {
		var message struct {
			ID       string `json:"id"`
			Status   string `json:"status"`
			Progress struct {
				Current int64 `json:"current"`
			} `json:"progressDetail"`
			Error string `json:"error"`
		}
		err := decoder.Decode(&message)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case message.Error != "":
			return errors.New(message.Error)
		}
		phase := map[string]string{"Downloading": "download", "Extracting": "load"}[message.Status]
		key := layer{message.ID, phase}
		if more := message.Progress.Current - seen[key]; phase != "" && more > 0 {
			seen[key] = message.Progress.Current
			moved(phase, more)
		}
	}
}

// pullFailure is one sentence about why an image could not be pulled.
func (i *images) pullFailure(ctx context.Context, ref string, err error) error {
	text := sentence(err)
	has := func(fragments ...string) bool {
		for _, fragment := range fragments {
			if strings.Contains(text, fragment) {
				return true
			}
		}
		return false
	}
	switch {
	case ctx.Err() != nil:
		return i.engine.failure(ctx, err)
	case has("no space left on device"):
		where := "its data directory"
		if e, err := i.engine.examine(ctx); err == nil {
			where = e.dataRoot
			if free, _, err := disk.Free(e.dataRoot); err == nil {
				where += " (" + resource.FormatBytes(free) + " free)"
			}
		}
		return fmt.Errorf("image %q does not fit: the disk of this node's Docker engine is full at %s: %w", ref, where, errdefs.ErrResourceExhausted)
	case has("verification failed", "does not match", "digest mismatch", "unexpected commit digest", "invalid checksum", "filesystem layer"):
		return fmt.Errorf("image %q arrived damaged (%s): %w", ref, text, errdefs.ErrDataLoss)
	case has("no matching manifest", "cannot be used on this platform", "does not match the specified platform"):
		return fmt.Errorf("image %q is not for this kind of machine: %w", ref, errdefs.ErrInvalidArgument)
	case has("manifest unknown", "not found", "name unknown", "repository does not exist"):
		return fmt.Errorf("image %q is not in the zone's store: %w", ref, errdefs.ErrNotFound)
	case has("connection refused", "EOF", "connection reset", "timeout", "received unexpected HTTP status: 5", "blob upload"):
		return fmt.Errorf("image %q could not be fetched (%s): %w", ref, text, errdefs.ErrUnavailable)
	}
	return i.engine.failure(ctx, fmt.Errorf("image %q: %w", ref, err))
}

// pulls allows one pull of an image at a time, which is cancelled when nobody waits for it.
type pulls struct {
	mu      sync.Mutex
	running map[string]*pull
	// present are the images that are on the host.
	present map[string]bool
	group   sync.WaitGroup
}

type pull struct {
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
	waiters map[*func(runtime.Progress)]struct{}
}

func (p *pulls) isPresent(ref string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.present[ref]
}

func (p *pulls) setPresent(ref string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.present[ref] = true
}

// forget reports whether ref was recorded as present.
func (p *pulls) forget(ref string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.present[ref]
	delete(p.present, ref)
	return was
}

// close ends all pulls and waits for them.
func (p *pulls) close() {
	p.mu.Lock()
	for _, one := range p.running {
		one.cancel()
	}
	p.mu.Unlock()
	p.group.Wait()
}

// join waits for the pull of ref, and starts it with do if it is not in progress.
func (p *pulls) join(ctx context.Context, ref string, progress func(runtime.Progress), do func(context.Context, func(runtime.Progress)) error) error {
	p.mu.Lock()
	if p.present[ref] {
		p.mu.Unlock()
		return nil
	}
	one := p.running[ref]
	if one == nil {
		pulling, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one = &pull{cancel: cancel, done: make(chan struct{}), waiters: make(map[*func(runtime.Progress)]struct{})}
		p.running[ref] = one
		p.group.Go(func() {
			defer cancel()
			err := do(pulling, func(step runtime.Progress) { p.report(one, step) })
			p.mu.Lock()
			defer p.mu.Unlock()
			one.err = err
			if p.running[ref] == one {
				delete(p.running, ref)
			}
			if err == nil {
				p.present[ref] = true
			}
			close(one.done)
		})
	}
	one.waiters[&progress] = struct{}{}
	p.mu.Unlock()
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(one.waiters, &progress)
		if len(one.waiters) == 0 {
			one.cancel()
			if p.running[ref] == one { // a later caller starts a new one
				delete(p.running, ref)
			}
		}
		return fmt.Errorf("image %q: %w", ref, context.Cause(ctx))
	}
}

func (p *pulls) report(one *pull, step runtime.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for progress := range one.waiters {
		(*progress)(step)
	}
}
