#pragma once

// Checkpoints on disk: CheckpointReader reads the values of one, bytes verified; Manifest says what is in it;
// scan lists a directory; exchange writes and reads other programs' files. Fs is the file system they work
// on, PosixFs the real one.

#include "checkpoint/directory/scan.h"
#include "checkpoint/exchange/export.h"
#include "checkpoint/exchange/import.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/restore/whole_tensors.h"
#include "checkpoint/storage/fs.h"
