// How the CUDA search walks the matrix of all products, tile by tile.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace ccfast::knn {

// Queries row0 .. row0 + rows with targets col0 .. col0 + cols. In a symmetric search, where queries and targets are
// the same rows, the tile's columns from `mirrored` on are queries too, and its rows their targets.
struct Tile {
  int64_t row0, rows, col0, cols, mirrored;
};

// Tiles of up to tile_rows x tile_cols that together offer every target to every query, each once. A query is offered
// its targets in ascending order. Symmetric: rows == cols, and what lies below the diagonal blocks is not multiplied.
inline std::vector<Tile> tiles_of(int64_t rows, int64_t cols, bool symmetric, int64_t tile_rows, int64_t tile_cols) {
  std::vector<Tile> tiles;
  for (int64_t row0 = 0; row0 < rows; row0 += tile_rows) {
    const int64_t height = std::min(tile_rows, rows - row0);
    for (int64_t col0 = symmetric ? row0 : 0; col0 < cols; col0 += tile_cols) {
      const int64_t width = std::min(tile_cols, cols - col0);
      const int64_t mirrored = symmetric ? std::clamp<int64_t>(row0 + height - col0, 0, width) : width;
      tiles.push_back({row0, height, col0, width, mirrored});
    }
  }
  return tiles;
}

}  // namespace ccfast::knn
