// Package resourcemanager is the process that grants a zone's resources to apps. It wires the parts and decides nothing: package
// server serves as long as the process lives, and a term (package term) leads the zone, for which package zone decides.
package resourcemanager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/records"
	"github.com/mammoth-os/mammoth/resourcemanager/server"
	"github.com/mammoth-os/mammoth/resourcemanager/store"
	"github.com/mammoth-os/mammoth/resourcemanager/term"
)

const (
	// A term that ends by itself within shortTerm counts as short. After mostShortTerms of these in a row the process ends.
	shortTerm      = time.Minute
	mostShortTerms = 5
)

// ResourceManager leads one zone, in one term after another.
type ResourceManager struct {
	config  Config
	open    func() (store.Store, error)
	server  *server.Server
	metrics *term.Metrics
	// terms is how many terms were begun. first is begun by New and served by Run.
	terms int
	first *term.Term
	id    records.ID
	// current is the term that leads; nil between two terms.
	current atomic.Pointer[term.Term]
}

// New opens the store and listens. Run must be called afterwards: it serves, and closes both at its end.
func New(ctx context.Context, config Config) (*ResourceManager, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the ResourceManager's directory: %w", err)
	}
	known := config.Store
	open := func() (store.Store, error) {
		opened, err := store.OpenFile(filepath.Join(config.Dir, store.FolderName), store.Options{
			Now: time.Now(), EventRetention: config.EventRetention, Known: known,
		})
		if err != nil {
			return nil, err
		}
		known = opened.Identity().ID // later terms find the same one
		return opened, nil
	}
	opened, err := open()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", config.Listen, err), opened.Close())
	}
	rm, err := newOn(ctx, config, opened, listener)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	rm.open = open
	return rm, nil
}

// newOn creates a ResourceManager from its parts. With an error it closes the store.
func newOn(ctx context.Context, config Config, opened store.Store, listener net.Listener) (*ResourceManager, error) {
	config.address = listener.Addr().String()
	rm := &ResourceManager{config: config, metrics: term.NewMetrics()}
	var err error
	if rm.first, err = rm.begin(ctx, opened); err != nil {
		return nil, err
	}
	rm.id = rm.first.Identity().ID
	rm.server = server.New(server.Config{
		Version: config.Version, AllowInsecure: config.AllowInsecure, Uploads: config.Images.Handler(), Metrics: rm.metrics.Handler(), Logger: config.Logger,
	}, listener)
	rm.metrics.CountRefused(rm.server.Refused)
	return rm, nil
}

// begin begins a term on a store, and closes the store with an error. Each term is recorded to a file of its own.
func (rm *ResourceManager) begin(ctx context.Context, opened store.Store) (*term.Term, error) {
	rm.terms++
	record := rm.config.Record
	if record != "" && rm.terms > 1 {
		record = fmt.Sprintf("%s.%d", record, rm.terms)
	}
	t, err := term.Begin(ctx, term.Config{
		Settings: rm.config.settings(), EventRetention: rm.config.EventRetention, Record: record,
		Images: rm.config.Images, Registry: rm.config.Registry, AllowHostNetwork: rm.config.AllowHostNetwork,
		Metrics: rm.metrics, Logger: rm.config.Logger,
	}, opened)
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	rm.current.Store(t)
	return t, nil
}

// StoreID is the id of its store.
func (rm *ResourceManager) StoreID() records.ID { return rm.id }

// Address is the HOST:PORT on which it listens.
func (rm *ResourceManager) Address() string { return rm.server.Address().String() }

// Term is the current term. Between two terms it fails with errdefs.ErrUnavailable.
func (rm *ResourceManager) Term() (*term.Term, error) {
	if t := rm.current.Load(); t != nil {
		return t, nil
	}
	return nil, server.ErrNoTerm
}

// Run serves until ctx ends. It returns an error if it cannot continue.
func (rm *ResourceManager) Run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	// The first term is served before the address is published, so that no client gets the answer to try again.
	stepDown, err := rm.server.Lead(running, server.Term{Services: rm.first.Services(), Ready: rm.first.Ready})
	if err != nil {
		ended, end := context.WithCancel(ctx)
		end()
		return errors.Join(err, rm.first.Run(ended), rm.server.Close()) // which closes the store, too
	}
	group.Go(func() error { return rm.server.Run(running) })
	group.Go(func() error { return rm.lead(running, rm.first, stepDown) })
	return group.Wait()
}

// lead runs one term after another until ctx ends. After a term whose store has failed, the next one continues from what is stored.
// lead fails if the store cannot be opened again or fails repeatedly. stepDown ends the serving of the first term.
func (rm *ResourceManager) lead(ctx context.Context, t *term.Term, stepDown func()) error {
	wait := backoff.Policy{Min: time.Second, Max: 10 * time.Second}
	for short := 0; ; {
		began := time.Now()
		failed := t.Run(ctx)
		rm.current.Store(nil)
		stepDown()
		if ctx.Err() != nil {
			return failed
		}
		if short++; time.Since(began) >= shortTerm {
			short = 1
		}
		if short >= mostShortTerms {
			return failed
		}
		rm.config.Logger.Error("the store has failed; the zone is led again from what is stored", "error", failed)
		select {
		case <-ctx.Done():
			return failed
		case <-time.After(wait.After(short)):
		}
		opened, err := rm.open()
		if err != nil {
			return errors.Join(failed, err)
		}
		if t, err = rm.begin(ctx, opened); err != nil {
			return errors.Join(failed, err)
		}
		if stepDown, err = rm.server.Lead(ctx, server.Term{Services: t.Services(), Ready: t.Ready}); err != nil {
			return errors.Join(failed, err, opened.Close())
		}
	}
}
