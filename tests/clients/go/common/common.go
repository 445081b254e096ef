// Package common is what the Go clients share: the commands' arguments, lines and digests. ../../README.md says what
// they mean.
package common

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Header is a name and a value beside a record.
type Header struct {
	Key   string
	Value []byte
}

// Record is one to write, or one that was read. Null is nil.
type Record struct {
	Topic             string
	Partition         int32
	Offset, Timestamp int64
	Key, Value        []byte
	Headers           []Header
}

// Client is what a program here brings. A command that fails panics: the judge wants to know where.
type Client struct {
	Write func(bootstrap, topic, codec string, records func(yield func(Record) bool))
	// Read reads to where the ends were when it began; from the first record at or behind the time, if that is not -1.
	Read  func(bootstrap string, time int64, topics []string, show func(Record))
	Group func(bootstrap, topic, name string, leave <-chan struct{})
	// Errors sends 200 kB to each topic and says by which number that was refused.
	Errors func(bootstrap, topic string) int
}

// Main runs the command that the arguments name.
func (client Client) Main() {
	command, bootstrap, arguments := os.Args[1], os.Args[2], os.Args[3:]
	switch command {
	case "write":
		client.Write(bootstrap, arguments[0], arguments[1], records)
	case "read":
		time := int64(-1)
		if arguments[0] != "beginning" {
			time = number(arguments[0])
		}
		out := bufio.NewWriter(os.Stdout)
		client.Read(bootstrap, time, arguments[1:], func(record Record) { show(out, record) })
		Must(out.Flush())
	case "group":
		client.Group(bootstrap, arguments[0], arguments[1], inputEnds())
	case "errors":
		Say("unknown", client.Errors(bootstrap, arguments[0]))
		Say("large", client.Errors(bootstrap, arguments[1]))
	default:
		panic("no such command: " + command)
	}
}

// Must panics with an error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Value panics with an error, or has the value.
func Value[T any](value T, err error) T {
	Must(err)
	return value
}

var saying sync.Mutex

// Say prints a line at once.
func Say(words ...any) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Println(words...)
}

// Owned is what a member of a group has: it says so whenever that changes.
type Owned struct {
	mutex      sync.Mutex
	partitions []int32
}

// Add takes partitions.
func (owned *Owned) Add(partitions ...int32) {
	owned.change(func(old []int32) []int32 {
		return slices.Compact(slices.Sorted(slices.Values(append(old, partitions...))))
	})
}

// Remove lets go of partitions.
func (owned *Owned) Remove(partitions ...int32) {
	gone := func(partition int32) bool { return slices.Contains(partitions, partition) }
	owned.change(func(old []int32) []int32 { return slices.DeleteFunc(old, gone) })
}

func (owned *Owned) change(how func([]int32) []int32) {
	owned.mutex.Lock()
	defer owned.mutex.Unlock()
	owned.partitions = how(owned.partitions)
	words := []any{"assigned"}
	for _, partition := range owned.partitions {
		words = append(words, partition)
	}
	Say(words...)
}

func number(text string) int64 { return Value(strconv.ParseInt(text, 10, 64)) }

func decode(field string) []byte {
	if field == "-" {
		return nil
	}
	return Value(hex.DecodeString(field[1:]))
}

func digest(data []byte) string {
	if data == nil {
		return "-"
	}
	return fmt.Sprintf("%d:%08x", len(data), crc32.ChecksumIEEE(data))
}

func records(yield func(Record) bool) {
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadString('\n')
		if err == io.EOF {
			return
		}
		Must(err)
		fields := strings.Fields(line)
		record := Record{Partition: int32(number(fields[0])), Timestamp: number(fields[1])}
		record.Key, record.Value = decode(fields[2]), decode(fields[3])
		for _, field := range fields[4:] {
			name, data, _ := strings.Cut(field, "=")
			record.Headers = append(record.Headers, Header{name, decode(data)})
		}
		if !yield(record) {
			return
		}
	}
}

// show may be called by readers of several partitions at once.
func show(out io.Writer, record Record) {
	saying.Lock()
	defer saying.Unlock()
	fmt.Fprint(out, record.Topic, " ", record.Partition, " ", record.Offset, " ", record.Timestamp)
	fmt.Fprint(out, " ", digest(record.Key), " ", digest(record.Value))
	for _, header := range record.Headers {
		fmt.Fprint(out, " ", header.Key, "=", digest(header.Value))
	}
	fmt.Fprintln(out)
}

func inputEnds() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	return ended
}
