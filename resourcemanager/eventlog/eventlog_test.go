package eventlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// fill adds the events first to last; the even ones are web's.
func fill(l *Log, first, last int64) {
	for n := first; n <= last; n++ {
		l.Add(&apiv1.Event{Sequence: n, App: []string{"web", "api"}[n%2]})
	}
}

// rest reads until the end, or until nothing is there for one that follows.
func rest(t *testing.T, r *Reader) ([]int64, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // of a bubble's clock
	defer cancel()
	var got []int64
	for {
		page, err := r.Next(ctx)
		if err != nil {
			return got, err
		}
		if len(page) > pageSize {
			t.Fatalf("a page of %d events", len(page))
		}
		for _, event := range page {
			got = append(got, event.GetSequence())
		}
	}
}

func TestReadersGetWhatTheyAskFor(t *testing.T) {
	l := New(1000)
	fill(l, 1, 600)
	evens := func(from, to int64) (list []int64) {
		for n := from; n <= to; n += 2 {
			list = append(list, n)
		}
		return list
	}
	for _, c := range []struct {
		request *apiv1.WatchEventsRequest
		want    []int64
	}{
		{&apiv1.WatchEventsRequest{App: "web"}, evens(2, 600)},
		{&apiv1.WatchEventsRequest{App: "web", After: 590}, evens(592, 600)},
		{&apiv1.WatchEventsRequest{App: "web", Tail: proto.Int32(3)}, evens(596, 600)},
		{&apiv1.WatchEventsRequest{App: "web", Tail: proto.Int32(3), After: 597}, evens(598, 600)},
		{&apiv1.WatchEventsRequest{Tail: proto.Int32(2)}, []int64{599, 600}},
		{&apiv1.WatchEventsRequest{Tail: proto.Int32(2000), App: "none"}, nil},
		{&apiv1.WatchEventsRequest{Tail: proto.Int32(0)}, nil},
		{&apiv1.WatchEventsRequest{After: 600}, nil},
		{&apiv1.WatchEventsRequest{After: 9000}, nil},
	} {
		got, err := rest(t, l.Read(c.request))
		if !errors.Is(err, io.EOF) || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v; want %v", c.request, got, err, c.want)
		}
	}
}

func TestWhoDoesNotFollowEndsWithWhatWasThereAtTheBeginning(t *testing.T) {
	l := New(1000)
	fill(l, 1, 2)
	r := l.Read(&apiv1.WatchEventsRequest{})
	fill(l, 3, 4)
	if got, err := rest(t, r); !errors.Is(err, io.EOF) || !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestFollowersGoOnWithWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1000)
		fill(l, 1, 3)
		r := l.Read(&apiv1.WatchEventsRequest{Follow: true, Tail: proto.Int32(1)})
		if got, _ := rest(t, r); !slices.Equal(got, []int64{3}) {
			t.Errorf("at first %v", got)
		}
		fill(l, 4, 5)
		if got, _ := rest(t, r); !slices.Equal(got, []int64{4, 5}) {
			t.Errorf("then %v", got)
		}
		ended := fmt.Errorf("the end")
		l.Close(ended)
		if _, err := rest(t, r); !errors.Is(err, ended) {
			t.Errorf("ended with %v", err)
		}
	})
}

// A reader that falls behind gets an error; one that begins late does not.
func TestWhoFallsBehindIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(100)
		fill(l, 1, 100)
		r := l.Read(&apiv1.WatchEventsRequest{Follow: true})
		fill(l, 101, 1000)
		if got, err := rest(t, r); !errdefs.IsResourceExhausted(err) || len(got) > 0 {
			t.Errorf("the slow reader: %v, %v", got, err)
		}
		got, err := rest(t, l.Read(&apiv1.WatchEventsRequest{}))
		if !errors.Is(err, io.EOF) || len(got) < 100 || len(got) > 125 || got[len(got)-1] != 1000 {
			t.Errorf("the late reader: %d events, %v", len(got), err)
		}
	})
}
