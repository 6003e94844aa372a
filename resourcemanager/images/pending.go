package images

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// maxPending is how many blobs may be pending.
const maxPending = 1 << 16

// pendingBlobs owns the blobs that were pushed, or that exist and a client did not push again, and whose manifest has not arrived.
type pendingBlobs struct {
	blobs map[pendingKey]pendingBlob
	// byUser is the number of each user's.
	byUser map[string]int
}

// pendingKey identifies a pending blob of a user's push to a repository.
type pendingKey struct {
	repository, user string
	blob             digest.Digest
}

// pendingBlob is since when a blob is pending, and its size if the user has pushed it.
type pendingBlob struct {
	since time.Time
	size  int64
}

func newPendingBlobs() pendingBlobs {
	return pendingBlobs{blobs: map[pendingKey]pendingBlob{}, byUser: map[string]int{}}
}

// keep keeps a blob for a later manifest of the repository. Above the limit, of which one user has a quarter, it is not kept and may
// have to be pushed again.
func (p *pendingBlobs) keep(key pendingKey, size int64) {
	before, known := p.blobs[key]
	switch {
	case known:
		size = max(size, before.size)
	case len(p.blobs) >= maxPending, p.byUser[key.user] >= maxPending/4:
		return
	default:
		p.byUser[key.user]++
	}
	p.blobs[key] = pendingBlob{since: time.Now(), size: size}
}

// drop ends that.
func (p *pendingBlobs) drop(keys ...pendingKey) {
	for _, key := range keys {
		if _, ok := p.blobs[key]; !ok {
			continue
		}
		delete(p.blobs, key)
		if p.byUser[key.user]--; p.byUser[key.user] == 0 {
			delete(p.byUser, key.user)
		}
	}
}

// dropOld drops what was pending for longer than idle, unless the same user still pushes to the repository.
func (p *pendingBlobs) dropOld(now time.Time, idle time.Duration, pushing map[push]bool) {
	for key, kept := range p.blobs {
		if now.Sub(kept.since) > idle && !pushing[push{key.repository, key.user}] {
			p.drop(key)
		}
	}
}

// digests lists the blobs.
func (p *pendingBlobs) digests() []digest.Digest {
	list := make([]digest.Digest, 0, len(p.blobs))
	for key := range p.blobs {
		list = append(list, key.blob)
	}
	return list
}

// pushedBy is the size of each blob that a user has pushed.
func (p *pendingBlobs) pushedBy(user string) map[digest.Digest]int64 {
	sizes := map[digest.Digest]int64{}
	for key, kept := range p.blobs {
		if key.user == user && kept.size > 0 {
			sizes[key.blob] = kept.size
		}
	}
	return sizes
}
