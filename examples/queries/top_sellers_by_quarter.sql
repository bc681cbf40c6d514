-- Which sellers sold best each quarter? Ten places by revenue (quantity times price), the newest quarter first.
-- Only paid orders count, whatever their state is now. An item whose product is gone has no seller: it is left out.
WITH sold AS (
    SELECT d."Year" AS year, d."Quarter" AS quarter,
           f."SellerID" AS seller_id, s."SellerName" AS seller,
           count(DISTINCT f."OrderID") AS orders, sum(f."Quantity") AS pieces, sum(f."Revenue") AS revenue
    FROM gold."FactSales" f
    JOIN gold."DimDate" d ON d."DateKey" = f."OrderDateKey"
    LEFT JOIN gold."DimSeller" s ON s."SellerID" = f."SellerID"
    WHERE f."IsPaid" AND f."SellerID" IS NOT NULL
    GROUP BY 1, 2, 3, 4
),
ranked AS (
    SELECT *, rank() OVER (PARTITION BY year, quarter ORDER BY revenue DESC) AS place
    FROM sold
)
SELECT year, quarter, place, seller_id, seller, orders, pieces, revenue
FROM ranked
WHERE place <= 10
ORDER BY year DESC, quarter DESC, place, seller_id;
