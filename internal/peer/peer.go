// Package peer says who runs the program at the other end of a connection. Nobody has to say it, and nobody can lie
// about it: on loopback the kernel knows whose socket it is.
package peer

import (
	"context"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
)

// User is who runs a program.
type User struct {
	// Name is the user's, or its number if it has none. It is empty if the kernel does not tell: the program runs on
	// another machine, or in a network namespace of its own.
	Name string
	// Operator is root, or whoever runs this process. Either could change its memory and its files anyway.
	Operator bool
}

// String names the user in a sentence.
func (u User) String() string {
	if u.Name == "" {
		return "somebody who is not known to this machine"
	}
	return "user " + strconv.Quote(u.Name)
}

// Connection is asked for its user once, when somebody first wants to know.
type Connection struct{ user func() User }

// Of is about the other end of an accepted connection. It costs nothing until it is asked.
func Of(connection net.Conn) *Connection {
	return &Connection{user: sync.OnceValue(func() User { return find(connection) })}
}

// User is who runs the program at the other end.
func (c *Connection) User() User { return c.user() }

func find(connection net.Conn) User {
	uid, known := owner(connection)
	if !known {
		return User{}
	}
	name := strconv.FormatUint(uint64(uid), 10)
	if entry, err := user.LookupId(name); err == nil {
		name = entry.Username
	}
	return User{Name: name, Operator: uid == 0 || int(uid) == os.Geteuid()}
}

type contextKey struct{}

// With is a context of a program that a user runs in this process.
func With(ctx context.Context, who User) context.Context {
	return context.WithValue(ctx, contextKey{}, &Connection{user: func() User { return who }})
}

// Connected is a context of requests that come in over a connection, as http.Server.ConnContext wants it.
func Connected(ctx context.Context, connection net.Conn) context.Context {
	return context.WithValue(ctx, contextKey{}, Of(connection))
}
